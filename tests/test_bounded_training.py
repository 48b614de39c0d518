"""Steps stay short: whatever the start, the factor, the regularizer and the optimizer."""

import functools

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import energy_value, normals
from sklearn.datasets import load_digits

from keras_mhe import MGD, MHC, MHE, MHP, MHS, RMHP, CoMHE, HalfSpaceMHE, RandomProjection

STRONG = {
    "MHE": MHE(1000.0),
    "MHE, s = 8": MHE(10.0, s=8),
    "half space": HalfSpaceMHE(100.0),
    "position": MHE(1000.0, scale="position"),
    "CoMHE": CoMHE(1000.0, projection=RandomProjection(dim=2, count=4)),
    "MHS": MHS(1000.0),
    "MGD": MGD(1000.0),
    "MHP": MHP(1000.0, pole="worst"),
    "MHC": MHC(1000.0, pole="worst"),
    "RMHP": RMHP(1000.0),
}
OPTIMIZERS = {
    "SGD 0.5": functools.partial(keras.optimizers.SGD, 0.5),
    "momentum": functools.partial(keras.optimizers.SGD, 0.1, momentum=0.9),
    "Adam": functools.partial(keras.optimizers.Adam, 0.01),
}
STARTS = {
    "zeros": keras.initializers.Zeros,
    "1e-4": functools.partial(keras.initializers.RandomNormal, stddev=1e-4),
    "1e-3": functools.partial(keras.initializers.RandomNormal, stddev=1e-3),
    "glorot": keras.initializers.GlorotUniform,
}


@functools.cache
def batches():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).integers(0, len(labels), 100 * 32)
    return (images[order] / 16).astype("float32"), labels[order]


def largest_norm(dimension, start, optimizer, regularizer, steps=100):
    """Trains on digits; returns the largest norm of a class vector before and after training.

    For the start "short", one class vector begins with norm 1e-6 and the others are ordinary.
    """
    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(
        10,
        kernel_initializer=STARTS["glorot" if start == "short" else start](),
        kernel_regularizer=regularizer,
    )
    features = [] if dimension == 64 else [keras.layers.Dense(dimension)]
    stack = [keras.Input((64,)), keras.layers.Dense(64, "relu"), *features, head]
    model = keras.Sequential(stack)
    if start == "short":
        kernel = keras.ops.convert_to_numpy(head.kernel).copy()
        kernel[:, 0] *= 1e-6 / np.linalg.norm(kernel[:, 0])
        head.kernel.assign(kernel)
    model.compile(
        OPTIMIZERS[optimizer](),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps if keras.backend.backend() != "torch" else 1,
    )

    def norm():
        return np.linalg.norm(keras.ops.convert_to_numpy(head.kernel), axis=0).max()

    before, (images, labels) = norm(), batches()
    model.fit(images[: 32 * steps], labels[: 32 * steps], batch_size=32, shuffle=False, verbose=0)
    return before, norm()


@functools.cache
def ordinary_norm(dimension, start, optimizer):
    """The larger of the norms of Glorot vectors and of vectors trained without an energy."""
    glorot, _ = largest_norm(dimension, "glorot", optimizer, None, steps=1)
    return max(glorot, largest_norm(dimension, start, optimizer, None)[1])


def assert_norms_are_ordinary(dimension, start, optimizer, name):
    _, norm = largest_norm(dimension, start, optimizer, STRONG[name])
    assert norm <= 3 * ordinary_norm(dimension, start, optimizer)


@pytest.mark.parametrize(
    ("dimension", "start", "optimizer", "name"),
    [(2, "zeros", "SGD 0.5", "MHE, s = 8"), (3, "short", "SGD 0.5", "MGD")],
)
def test_strong_energies_leave_ordinary_norms(dimension, start, optimizer, name):
    assert_norms_are_ordinary(dimension, start, optimizer, name)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("dimension", [2, 3, 64])
@pytest.mark.parametrize("name", STRONG)
def test_every_strong_energy_leaves_ordinary_norms(dimension, name):
    # Every start and every optimizer, over the regularizers and dimensions together.
    shift = list(STRONG).index(name) + dimension
    for k in range(2):
        start = [*STARTS, "short"][(shift + 3 * k) % 5]
        optimizer = list(OPTIMIZERS)[(shift + k) % 3]
        assert_norms_are_ordinary(dimension, start, optimizer, name)


def kernel_after_two_steps(rate, factor):
    layer = keras.layers.Dense(10, kernel_initializer="zeros", kernel_regularizer=MHE(factor))
    model = keras.Sequential([keras.Input((64,)), layer])
    model.compile(
        keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = batches()
    for _ in range(2):
        model.train_on_batch(images[:32], labels[:32])
    return keras.ops.convert_to_numpy(layer.kernel)


def test_steps_from_zero_shrink_with_the_learning_rate():
    """Without the bound, the second step has the same length at every learning rate."""
    sizes = {rate: np.abs(kernel_after_two_steps(rate, 1000.0)).max() for rate in (1e-2, 1e-4)}
    assert sizes[1e-4] == pytest.approx(1e-2 * sizes[1e-2], rel=0.05)


@pytest.mark.parametrize("name", ["SGD", pytest.param("Adam", marks=pytest.mark.slow)])
def test_short_neurons_reach_the_known_minimum(name):
    """The bound does not move minima: 12 charges become an icosahedron, from norms near 0.1."""
    regularizer = MHE(10.0, s=1, softening=0)
    kernel = keras.Variable(normals(3, 12) * 0.06)
    steps = 400
    rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
    optimizer = getattr(keras.optimizers, name)(rate)
    for _ in range(steps):
        _, gradient = value_and_gradient(regularizer, kernel.value)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    least = 49.165253058 * 2 / (12 * 11)
    assert energy_value(kernel, 1, softening=0) == pytest.approx(least, rel=1e-5)
