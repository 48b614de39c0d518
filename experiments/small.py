"""Small classifiers: hidden layers, features of few dimensions, a class vector for each class."""

from typing import Any

import keras
import numpy as np

_DECAY = keras.regularizers.L2(5e-4)


def _dense_trunk(width: int) -> list[Any]:
    layers: list[Any] = [keras.layers.Flatten()]
    for _ in range(2):
        layers.append(keras.layers.Dense(width, "relu", kernel_regularizer=_DECAY))
    return layers


def _convolutional_trunk(width: int) -> list[Any]:
    layers: list[Any] = []
    for block in range(3):
        layers += [
            keras.layers.Conv2D(
                width << block, 3, padding="same", use_bias=False, kernel_regularizer=_DECAY
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
        ]
    return [*layers, keras.layers.Flatten()]


def features_of(shape: tuple[int, ...], features: int, width: int = 0) -> keras.Sequential:
    """From images to features: dense layers for digits, convolutions for larger images."""
    trunk = _convolutional_trunk(width or 16) if shape[0] > 8 else _dense_trunk(width or 128)
    last = keras.layers.Dense(features, kernel_regularizer=_DECAY)
    return keras.Sequential([keras.Input(shape), *trunk, last], name="features")


def class_vectors(classes: int, regularizer: keras.Regularizer | None) -> keras.layers.Dense:
    """An output layer without bias: a direction for each class."""
    return keras.layers.Dense(
        classes,
        use_bias=False,
        kernel_regularizer=_DECAY if regularizer is None else regularizer + _DECAY,
        name="classes",
    )


class UnitClassVectors(keras.layers.Layer):
    """`|x| cos(x, w_j)`: class vectors count with length one, whatever length they have."""

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
    rate: float = 0.02,
    loss: Any = None,
) -> None:
    """SGD with momentum and a cosine to zero, all passes as one epoch of Keras."""
    rng = np.random.default_rng(seed)
    whole = len(y) // batch * batch
    order = np.concatenate([rng.permutation(len(y))[:whole] for _ in range(passes)])
    steps = len(order) // batch
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(rate, steps), momentum=0.9),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Divides the steps: a rest would be another program to compile.
        steps_per_execution=next(n for n in range(10, 0, -1) if steps % n == 0),
    )
    model.fit(x[order], y[order], batch_size=batch, shuffle=False, verbose=0)


def guessed(
    features: keras.Model, head: keras.layers.Layer, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features of images, and the classes whose logits are largest."""
    points = features.predict(images, batch_size=500, verbose=0)
    return points, keras.ops.convert_to_numpy(head(points)).argmax(axis=1)


def directions(vectors: Any, axis: int) -> np.ndarray:
    """Vectors of length one in float64."""
    array = keras.ops.convert_to_numpy(vectors).astype("float64")
    return array / np.maximum(np.linalg.norm(array, axis=axis, keepdims=True), 1e-30)


def angle_figures(features: np.ndarray, labels: np.ndarray, kernel: Any) -> dict[str, float]:
    """How near class vectors are to each other, and features to their own."""
    unit = directions(kernel, axis=0)
    cosines = unit.T @ unit - 2 * np.eye(unit.shape[1])
    nearest = np.degrees(np.arccos(np.clip(cosines.max(axis=0), -1, 1)))
    own = np.sum(directions(features, axis=1) * unit.T[labels], axis=1)
    return {
        "smallest angle of classes °": nearest.min(),
        "mean nearest angle °": nearest.mean(),
        "feature to its class °": np.degrees(np.arccos(np.clip(own, -1, 1))).mean(),
    }
