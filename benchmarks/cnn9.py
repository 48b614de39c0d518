"""A training step of the papers' CNN-9: what an energy adds to it."""

from typing import Any

import keras
import numpy as np

import keras_mhe
from benchmarks.contenders import papers_formula
from benchmarks.timing import compared, rounds
from keras_mhe.regularizers import RegularizerSum

# The papers' 5e-4 is for half the squared norm.
_DECAY = 2.5e-4


class PapersFormula(keras.Regularizer):
    """The papers' formula as a regularizer."""

    def __init__(self, factor: float, half_space: bool) -> None:
        self.factor, self.half_space = factor, half_space

    def __call__(self, kernel: Any) -> Any:
        return self.factor * papers_formula(kernel, half_space=self.half_space)


REGULARIZERS = {
    "L2": (None, None),
    "keras_mhe": (keras_mhe.HalfSpaceMHE(1.0), keras_mhe.MHE(10.0)),
    "RP-CoMHE": (keras_mhe.CoMHE(), keras_mhe.MHE(10.0)),
    "papers": (PapersFormula(1.0, True), PapersFormula(10.0, False)),
}


def cnn9(hidden: Any, output: Any, width: int, jit_compile: Any, classes: int = 10) -> keras.Model:
    """CNN-9 of Liu et al. (2018) for 32 x 32 images, compiled.

    Args:
        hidden: regularizer of the hidden kernels beside L2, or `None`.
        output: regularizer of the last kernel beside L2, or `None`.
        width: filters of the first block; 64 in the papers.
        jit_compile: as in `keras.Model.compile`.
        classes: outputs.
    """
    layers = keras.layers

    def decayed(regularizer: Any) -> Any:
        decay = keras.regularizers.L2(_DECAY)
        return decay if regularizer is None else RegularizerSum([regularizer, decay])

    def convolution(filters: int, size: int, padding: str, regularizer: Any) -> Any:
        return layers.Conv2D(
            filters,
            size,
            padding=padding,
            kernel_initializer="he_normal",
            kernel_regularizer=decayed(regularizer),
        )

    stack: list[Any] = [keras.Input((32, 32, 3))]
    for block in range(3):
        for _ in range(3):
            stack.append(convolution(width << block, 3, "same", hidden))
            stack += [layers.BatchNormalization(), layers.ReLU()]
        stack.append(layers.MaxPooling2D())
    stack += [convolution(width << 2, 4, "valid", hidden), convolution(classes, 1, "valid", output)]
    stack.append(layers.Flatten())
    model = keras.Sequential(stack)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each regularizer and way of compiling: seconds a step, ratio to L2 alone."""
    width, batch = (8, 16) if quick else (64, 128)
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (batch, 32, 32, 3)).astype("float32")
    labels = generator.integers(0, 10, batch)
    rows = []
    # On TensorFlow "auto" leaves a model of a CPU without XLA: the quicker step, the harder test.
    ways = ("auto", True) if keras.backend.backend() == "tensorflow" and not quick else ("auto",)
    for jit_compile in ways:
        models = {
            name: cnn9(*regularizers, width, jit_compile)
            for name, regularizers in REGULARIZERS.items()
        }
        times, _ = rounds(
            {name: lambda m=m: m.train_on_batch(images, labels) for name, m in models.items()},
            count=3 if quick else 15,
            least=0.02 if quick else 1.0,
        )
        rows += [
            {
                "regularizer": name,
                "batch": batch,
                "width": width,
                "jit_compile": jit_compile,
                **compared(times, name, "L2"),
            }
            for name in models
        ]
    return rows
