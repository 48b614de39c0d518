"""Networks whose training steps are measured, besides CNN-9, each with a batch of data."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from workloads.precision import dtype_policy

_WORDS = 20_000
_TOKENS = 4_000


class Workload(NamedTuple):
    """A compiled model, and one batch for it."""

    model: keras.Model
    inputs: np.ndarray
    labels: np.ndarray


def _images(rng: np.random.Generator, batch: int, size: int) -> np.ndarray:
    return rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32")


def _application(name: str) -> Callable[[np.random.Generator, bool], Workload]:
    def build(rng: np.random.Generator, small: bool) -> Workload:
        batch, size = (2, 64) if small else (32, 224)
        network = getattr(keras.applications, name)
        model = network(weights=None, input_shape=(size, size, 3))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return Workload(model, _images(rng, batch, size), rng.integers(0, 1000, batch))

    return build


def _digits(rng: np.random.Generator, small: bool) -> Workload:
    """A small network of dense layers, as in many first examples, on 28 x 28 images."""
    layers = keras.layers
    dense = [layers.Dense(128, "relu"), layers.Dense(64, "relu"), layers.Dense(10)]
    model = keras.Sequential([keras.Input((784,)), *dense])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs = rng.uniform(0, 1, (32, 784)).astype("float32")
    return Workload(model, inputs, rng.integers(0, 10, 32))


def _text(rng: np.random.Generator, small: bool) -> Workload:
    """A classifier of texts that averages the embeddings of their words."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((200,), dtype="int32"),
            layers.Embedding(_WORDS, 32),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, "relu"),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return Workload(model, rng.integers(0, _WORDS, (32, 200)), rng.integers(0, 2, (32, 1)))


def _transformer(rng: np.random.Generator, small: bool) -> Workload:
    """A language model of two blocks with 4,000 tokens, which predicts each next token."""
    layers = keras.layers
    length, width = (8, 32) if small else (64, 128)
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(_TOKENS, width)(tokens)
    for _ in range(2):
        inner = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(inner, inner, use_causal_mask=True)
        inner = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(inner))
    model = keras.Model(tokens, layers.Dense(_TOKENS)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    text = rng.integers(0, _TOKENS, (32, length + 1))
    return Workload(model, text[:, :-1], text[:, 1:])


NETWORKS: dict[str, Callable[[np.random.Generator, bool], Workload]] = {
    "digits": _digits,
    "text": _text,
    "transformer": _transformer,
    "MobileNetV3": _application("MobileNetV3Small"),
    "ResNet50": _application("ResNet50"),
}


def workload(name: str, policy: str, small: bool) -> Workload:
    """Builds a network with the same data in each call; a small one for checks."""
    with dtype_policy(policy):
        return NETWORKS[name](np.random.default_rng(0), small)
