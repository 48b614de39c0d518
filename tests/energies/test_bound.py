"""The bound on gradients: how long they are, which way they point, and what stays exact."""

import math

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import energy_and_gradient, normals, squared_gradient

from keras_mhe import MHE
from keras_mhe.energies._bound import attainable_angle, bounded_gradient, largest_force

# Two groups of three coordinates and five neurons, all of norms between 1e-6 and 100.
NORMS = np.array([1e-6, 0.05, 0.5, 3.0, 100.0])
MATRIX = normals(2, 3, 5, dtype="float64")
MATRIX *= NORMS / np.linalg.norm(MATRIX, axis=-2, keepdims=True)
MATRIX = MATRIX.astype("float32")


def bounded(gradient, matrix=MATRIX, force=1.0):
    tensors = map(keras.ops.convert_to_tensor, (matrix, gradient))
    return keras.ops.convert_to_numpy(bounded_gradient(*tensors, force))


@pytest.mark.parametrize(
    ("n", "d", "half_space", "degrees"),
    [
        (4, 3, False, 109.471),  # tetrahedron
        (12, 3, False, 63.435),  # icosahedron
        (6, 3, True, 63.435),  # its diagonals
        (10, 2, False, 36.0),
        (64, 576, True, 90.0),
        (1, 5, False, 180.0),
    ],
)
def test_the_attainable_angle_is_that_of_the_best_sets(n, d, half_space, degrees):
    assert math.degrees(attainable_angle(n, d, half_space)) == pytest.approx(degrees, abs=1e-3)


def test_the_largest_force_falls_with_the_number_and_the_crowding_of_neurons():
    assert largest_force(3, 8, False, 3) == 1
    assert largest_force(256, 2304, True, 256) == pytest.approx(25 * (math.pi / 2) ** 2 / 256)
    assert largest_force(20, 2, False, 20) == pytest.approx(25 * (math.pi / 10) ** 2 / 20)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e15])
def test_gradients_keep_their_direction_up_to_the_largest_length(scale):
    gradient = normals(2, 3, 5, seed=1) * np.float32(scale)
    lengths = np.linalg.norm(gradient.astype("float64"), axis=-2, keepdims=True)
    longest = 0.3 / np.maximum(NORMS, 0.5)
    expected = gradient * np.minimum(1, longest / lengths)
    np.testing.assert_allclose(bounded(gradient, force=0.3), expected, rtol=1e-5, atol=1e-30)


def test_short_gradients_keep_every_bit():
    gradient = (normals(2, 3, 5, seed=1) * 1e-3 / NORMS).astype("float32")
    gradient[..., :3] *= NORMS[:3].astype("float32")
    np.testing.assert_array_equal(bounded(gradient), gradient)


@pytest.mark.parametrize("norm", [1e-30, 1e30])
def test_neurons_of_extreme_norms_have_the_bound_of_their_norm(norm):
    matrix = (normals(4, 3) * norm).astype("float32")
    lengths = np.linalg.norm(matrix.astype("float64"), axis=0)
    # Gradients of energies are proportional to the reciprocal norm.
    gradient = (normals(4, 3, seed=1) * 1e3 / lengths).astype("float32")
    got = np.linalg.norm(bounded(gradient, matrix).astype("float64"), axis=0)
    np.testing.assert_allclose(got, 1 / np.maximum(lengths, 0.5), rtol=1e-5)


def test_zero_gradients_stay_zero_and_invalid_ones_invalid():
    gradient = np.zeros((3, 2), "float32")
    gradient[0, 1] = np.nan
    got = bounded(gradient, normals(3, 2))
    np.testing.assert_array_equal(got[:, 0], 0)
    assert np.isnan(got[0, 1])


def test_zero_neurons_have_the_bound_of_short_ones():
    got = bounded(np.full((3, 2), 1e3, "float32"), np.zeros((3, 2), "float32"))
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), 2, rtol=1e-5)


def loss_and_gradient(regularizer, kernel, upstream=1.0):
    return value_and_gradient(lambda k: upstream * regularizer(k), kernel)


def test_the_loss_and_weak_gradients_do_not_depend_on_the_bound():
    kernel = normals(6, 5)
    value, gradient = energy_and_gradient(kernel)
    for bounded in (False, True):
        loss, change = loss_and_gradient(MHE(0.5, bounded=bounded), kernel)
        assert loss == pytest.approx(0.5 * value, rel=1e-6)
        np.testing.assert_allclose(change, 0.5 * gradient, rtol=1e-5, atol=1e-8)


def test_strong_gradients_are_bounded_only_on_request():
    kernel = normals(6, 5)
    _, gradient = energy_and_gradient(kernel)
    loss, change = loss_and_gradient(MHE(1e4, bounded=False), kernel)
    np.testing.assert_allclose(change, 1e4 * gradient, rtol=1e-5, atol=1e-4)
    same_loss, change = loss_and_gradient(MHE(1e4), kernel)
    assert same_loss == pytest.approx(loss, rel=1e-6)
    lengths = np.linalg.norm(change, axis=0) * np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(lengths, largest_force(5, 6, False, 5), rtol=1e-5)


def test_second_derivatives_are_finite_where_gradients_are_zero_or_bounded():
    kernel = normals(6, 5)
    kernel[:, 0] = 0.0

    _, gradient = value_and_gradient(lambda k: squared_gradient(k, MHE(1e4)), kernel)
    assert np.all(np.isfinite(gradient))


def test_an_upstream_gradient_is_multiplied_after_the_bound():
    """The scale of a loss in float16, and replicas, must not change the step."""
    kernel = normals(6, 5)
    _, expected = loss_and_gradient(MHE(1e4), kernel)
    for upstream in (2.0**15, 0.25):
        _, change = loss_and_gradient(MHE(1e4), kernel, upstream)
        np.testing.assert_allclose(change / upstream, expected, rtol=1e-6, atol=1e-9)
