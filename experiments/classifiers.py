"""Small classifiers: hidden layers, features of few dimensions, a class vector for each class."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from experiments.experiment import InputError
from keras_mhe import energy_report

WEIGHT_DECAY = 5e-4


class Optimizer(NamedTuple):
    """An optimizer of the experiments.

    Attributes:
        make: function from a learning rate to an optimizer of Keras.
        rate: default learning rate.
        l2: factor of L2 of the networks that it trains.
    """

    make: Callable[[Any], keras.Optimizer]
    rate: float
    l2: float


OPTIMIZERS = {
    "sgd": Optimizer(partial(keras.optimizers.SGD, momentum=0.9), 0.02, WEIGHT_DECAY),
    "adam": Optimizer(keras.optimizers.Adam, 0.001, WEIGHT_DECAY),
    # It decays weights itself.
    "adamw": Optimizer(partial(keras.optimizers.AdamW, weight_decay=0.1), 0.01, 0.0),
}


def optimizer_named(name: str) -> Optimizer:
    """Returns one of `OPTIMIZERS`."""
    if name not in OPTIMIZERS:
        raise InputError(f"Optimizers are {', '.join(OPTIMIZERS)}. Received: {name}")
    return OPTIMIZERS[name]


def _dense_layers(width: int, decay: keras.Regularizer) -> list[Any]:
    layers: list[Any] = [keras.layers.Flatten()]
    for _ in range(2):
        layers.append(keras.layers.Dense(width, "relu", kernel_regularizer=decay))
    return layers


def _convolutional_layers(width: int, decay: keras.Regularizer) -> list[Any]:
    layers: list[Any] = []
    for block in range(3):
        layers += [
            keras.layers.Conv2D(
                width << block, 3, padding="same", use_bias=False, kernel_regularizer=decay
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    return [*layers, keras.layers.Flatten()]


def feature_network(
    image_shape: tuple[int, ...], features: int, width: int = 0, l2: float = WEIGHT_DECAY
) -> keras.Sequential:
    """Builds a network from images to features: dense for digits, else convolutional."""
    digits, decay = image_shape[0] <= 8, keras.regularizers.L2(l2)
    hidden = (
        _dense_layers(width or 128, decay) if digits else _convolutional_layers(width or 16, decay)
    )
    last = keras.layers.Dense(features, kernel_regularizer=decay)
    return keras.Sequential([keras.Input(image_shape), *hidden, last], name="features")


def class_vectors(
    classes: int, regularizer: keras.Regularizer | None, l2: float = WEIGHT_DECAY
) -> keras.layers.Dense:
    """Builds an output layer without bias, whose kernel has a class vector for each class."""
    decay = keras.regularizers.L2(l2)
    return keras.layers.Dense(
        classes,
        use_bias=False,
        kernel_regularizer=decay if regularizer is None else regularizer + decay,
        name="classes",
    )


class UnitClassVectors(keras.layers.Layer):
    """Computes `|x| cos(x, w_j)`: class vectors are used with length one."""

    def __init__(self, classes: int, regularizer: keras.Regularizer | None) -> None:
        super().__init__(name="classes")
        self.classes, self.regularizer = classes, regularizer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            (input_shape[-1], self.classes),
            initializer="glorot_uniform",
            regularizer=self.regularizer,
            name="kernel",
        )

    def call(self, features: Any) -> Any:
        return keras.ops.matmul(features, keras.ops.normalize(self.kernel, axis=0))


def fit(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    passes: int,
    batch: int = 32,
    rate: float | None = None,
    loss: Any = None,
    optimizer: str = "sgd",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains with cosine decay of the learning rate; all passes are one epoch of Keras.

    With callbacks, an execution is one step, so that they may act at each one.
    """
    chosen = optimizer_named(optimizer)
    rate = chosen.rate if rate is None else rate
    rng = np.random.default_rng(seed)
    images_per_pass = len(y) // batch * batch
    order = np.concatenate([rng.permutation(len(y))[:images_per_pass] for _ in range(passes)])
    steps = len(order) // batch
    model.compile(
        chosen.make(keras.optimizers.schedules.CosineDecay(rate, steps)),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # A divisor of the steps: a remainder would need another program to compile.
        steps_per_execution=1 if callbacks else next(n for n in range(10, 0, -1) if steps % n == 0),
    )
    model.fit(
        x[order], y[order], batch_size=batch, shuffle=False, verbose=0, callbacks=[*callbacks]
    )


def predict(
    features: keras.Model, head: keras.layers.Layer, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of images, and the classes with the largest logits."""
    points = features.predict(images, batch_size=500, verbose=0)
    return points, keras.ops.convert_to_numpy(head(points)).argmax(axis=1)


def unit_vectors(vectors: Any, axis: int) -> np.ndarray:
    """Returns vectors scaled to length one, in float64."""
    array = keras.ops.convert_to_numpy(vectors).astype("float64")
    return array / np.maximum(np.linalg.norm(array, axis=axis, keepdims=True), 1e-30)


def angle_metrics(model: keras.Model, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns angles between class vectors, and from features to the vectors of their classes.

    Args:
        model: a classifier whose class vectors are the kernel of the layer `"classes"`.
        features: inputs of that layer.
        labels: classes of the features.
    """
    [row] = energy_report(model, half_space=False, where="classes").rows
    angles = row.nearest_angle_min, row.nearest_angle_mean
    # A kernel with a non-finite entry has failed, so its other angles do not count.
    smallest, mean = (np.nan, np.nan) if row.non_finite or None in angles else angles
    class_of_each = unit_vectors(model.get_layer("classes").kernel, axis=0).T[labels]
    cosines = np.sum(unit_vectors(features, axis=1) * class_of_each, axis=1)
    return {
        "smallest angle of classes °": smallest,
        "mean nearest angle °": mean,
        "feature to its class °": np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean(),
    }
