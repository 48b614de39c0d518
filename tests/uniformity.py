"""Definitions of the measures of uniformity in NumPy and float64."""

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient

from keras_mhe.energies._neurons import neuron_matrix


def points(kernel, half_space):
    unit = kernel / np.linalg.norm(kernel, axis=0)
    return np.concatenate([unit, -unit], axis=1) if half_space else unit


def squared_distances(x, y):
    return np.sum((x[:, :, None] - y[:, None, :]) ** 2, axis=0)


def separation(kernel, half_space, all_neurons=False, measure=None, epsilon=0.0):
    """Minus a measure of the smallest distance, or its mean over the nearest neighbors."""
    x = points(kernel, half_space)
    square = (squared_distances(x, x) + 9 * np.eye(x.shape[1])).min(axis=0)[: kernel.shape[1]]
    measured = {
        None: np.sqrt(square) if all_neurons else square,
        "squared": square,
        # Below epsilon, the tangent in the squared distance, and so in the cosine.
        "log": np.where(
            square < epsilon,
            np.log(max(epsilon, 1e-300)) / 2 + (square - epsilon) / (2 * max(epsilon, 1e-300)),
            np.log(np.where(square > 0, square, 1)) / 2,
        ),
        "angle": np.arccos(1 - square / 2),
    }[measure]
    return -np.mean(measured) if all_neurons else -measured.min()


def gram_determinant(kernel, half_space, jitter=1e-6):
    x = points(kernel, half_space)
    return -np.linalg.slogdet(np.exp(-squared_distances(x, x)) + jitter * np.eye(x.shape[1]))[1]


def polarization(kernel, pole, half_space, s=2):
    v = pole[:, None] / np.linalg.norm(pole)
    return np.mean(squared_distances(points(kernel, half_space), v) ** (-s / 2))


def covering(kernel, pole, half_space, gamma=10.0):
    v = pole[:, None] / np.linalg.norm(pole)
    return (
        -np.log(np.mean(np.exp(-gamma * squared_distances(points(kernel, half_space), v)))) / gamma
    )


def assert_matches_definition(regularizer, definition, kernel, state=None):
    """Asserts that value and gradient match the definition and its central differences."""
    groups = regularizer.groups or 1

    def energy(kernel):
        return np.mean([definition(group) for group in np.split(kernel, groups, axis=1)])

    state = {k: keras.ops.convert_to_tensor(v) for k, v in (state or {}).items()}
    value, gradient = value_and_gradient(
        lambda k: regularizer.energy(neuron_matrix(k, groups=groups), state), kernel
    )
    assert value == pytest.approx(energy(kernel), rel=1e-6)
    expected = oracle.central_differences(energy, kernel)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


on_spaces_and_groups = pytest.mark.parametrize(
    ("half_space", "groups"), [(False, None), (True, None), (True, 2)]
)
