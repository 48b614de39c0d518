"""Removing neurons from a trained network: do spread neurons make this better or worse?

Two neurons with nearly the same direction are redundant: if one is removed, the other still carries
its information. An energy leaves no such pairs, so each removed neuron could cost more. Or fewer
neurons could suffice, because each carries something of its own.
"""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from experiments.classifiers import class_vectors, feature_network, fit
from experiments.data import split_digits
from experiments.experiment import Experiment, Outcome
from experiments.records import Config
from keras_mhe import HalfSpaceMHE, energy_report

CLASSES, FEATURES, DRAWS = 10, 32, 20


def _group_lasso(kernel: Any) -> Any:
    """Penalizes the norms of neurons, a known way to prepare a network for their removal."""
    return 0.01 * keras.ops.sum(keras.ops.norm(kernel, axis=0))


VARIANTS: dict[str, Callable[[Any], Any] | None] = {
    "baseline": None,
    **{f"position {factor:g}": HalfSpaceMHE(factor, scale="position") for factor in (0.1, 1, 10)},
    "orthogonal": keras.regularizers.OrthogonalRegularizer(1.0, mode="columns"),
    "group lasso": _group_lasso,
}


def _add_regularizer(layer: keras.layers.Dense, added: Callable[[Any], Any]) -> None:
    decay = layer.kernel.regularizer
    layer.kernel.regularizer = lambda kernel: decay(kernel) + added(kernel)


def network(variant: str) -> tuple[keras.Sequential, keras.layers.Dense]:
    """Returns a network from images to features, and the layer of its class vectors."""
    features = feature_network((8, 8, 1), FEATURES)
    added = VARIANTS[variant]
    if added is not None:
        for layer in features.layers:
            if isinstance(layer, keras.layers.Dense):
                _add_regularizer(layer, added)
    return features, class_vectors(CLASSES, None)


def dense_weights(features: keras.Sequential) -> list[list[np.ndarray]]:
    """Returns kernel and bias of each Dense layer."""
    layers = [layer for layer in features.layers if isinstance(layer, keras.layers.Dense)]
    return [layer.get_weights() for layer in layers]


def pruned_features(
    weights: list[list[np.ndarray]], images: np.ndarray, kept: list[np.ndarray]
) -> np.ndarray:
    """Returns features without some neurons.

    Args:
        weights: `dense_weights` of the network.
        images: inputs of the network.
        kept: indices of the neurons that stay, for each layer with ReLU.
    """
    values = images.reshape(len(images), -1)
    for (kernel, bias), indices in zip(weights, kept, strict=False):
        active = np.zeros((len(values), len(bias)), values.dtype)
        active[:, indices] = np.maximum(values @ kernel[:, indices] + bias[indices], 0)
        values = active
    kernel, bias = weights[-1]
    return values @ kernel + bias


def largest_neurons(weights: list[list[np.ndarray]], share: float) -> list[np.ndarray]:
    """Returns the neurons with the largest products of incoming and outgoing norms.

    With ReLU, this product does not depend on how a neuron's weights share a scale.
    """
    norms = [
        np.linalg.norm(kernel, axis=0) * np.linalg.norm(following, axis=1)
        for (kernel, _), (following, _) in itertools.pairwise(weights)
    ]
    return [np.argsort(-each)[: int(share * len(each))] for each in norms]


def run(config: Config, source: str) -> Outcome:
    """Trains once, and measures accuracy with all neurons and with some of them."""
    seed, optimizer = int(config["seed"]), str(config["optimizer"])
    images = split_digits(seed)
    features, head = network(str(config["variant"]))
    passes = int(config["passes"])
    model = keras.Sequential([features, head])
    fit(model, images.x, images.y, seed, passes, optimizer=optimizer)
    weights, [classes] = dense_weights(features), head.get_weights()

    def accuracy(kept: list[np.ndarray]) -> float:
        logits = pruned_features(weights, images.x_test, kept) @ classes
        return 100 * float(np.mean(logits.argmax(axis=1) == images.y_test))

    rng = np.random.default_rng(seed)
    widths = [len(bias) for _, bias in weights[:-1]]
    random_halves = [[rng.permutation(n)[: n // 2] for n in widths] for _ in range(DRAWS)]
    return Outcome(
        {
            "all neurons %": accuracy([np.arange(n) for n in widths]),
            "largest half %": accuracy(largest_neurons(weights, 1 / 2)),
            "largest quarter %": accuracy(largest_neurons(weights, 1 / 4)),
            "random half %": float(np.mean([accuracy(kept) for kept in random_halves])),
            "largest eighth %": accuracy(largest_neurons(weights, 1 / 8)),
            "mean position": energy_report(features, half_space=True).summary["position_mean"],
        }
    )


experiment = Experiment(
    "pruning",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("all neurons %", "largest half %", "largest quarter %", "random half %"),
    grid={"optimizer": ("sgd", "adam"), "passes": (40,)},
    quick_grid={"optimizer": ("adam",), "passes": (2,)},
    chance_level=lambda config: 100 / CLASSES,
)
