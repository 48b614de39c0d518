"""Energies, nearest neighbours and faults: against loops over all pairs, across panels too."""

import keras
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import normals, on_every_potential

from keras_mhe import census as module
from keras_mhe import hyperspherical_energy
from keras_mhe.axes import neuron_array, neuron_matrix
from keras_mhe.census import census
from keras_mhe.potentials import potential_of

pytestmark = pytest.mark.once


@pytest.fixture(params=[4, 512])
def panel(request, monkeypatch):
    """Small panels send few neurons through all that many go through."""
    monkeypatch.setattr(module, "_PANEL", request.param)


def taken(matrix, s=2.0, distance="euclidean", half_space=False, softening="auto"):
    """The census of a matrix, or of an array of groups of them."""
    matrix = np.asarray(matrix, "float64")
    potential = potential_of(np.zeros(matrix.shape, "float32"), s, distance, half_space, softening)
    return census(matrix.reshape(-1, *matrix.shape[-2:]), potential)


def nearest_by_definition(matrix, half_space):
    unit = matrix / np.linalg.norm(matrix, axis=0)
    n = unit.shape[1]
    angles = np.full((n, n), np.inf)
    for i in range(n):
        for j in range(n):
            if i != j:
                gap, sum_ = (np.linalg.norm(unit[:, i] + k * unit[:, j]) for k in (-1, 1))
                angle = 2 * np.degrees(np.arctan2(gap, sum_))
                angles[i, j] = min(angle, 180 - angle) if half_space else angle
    return angles.min(axis=1)


@on_every_potential
@pytest.mark.usefixtures("panel")
def test_energy_is_that_of_its_definition(s, distance, half_space):
    matrix = normals(3, 11)
    floor = oracle.auto_floor(22 if half_space else 11, 3)
    expected = oracle.energy(matrix, s, distance, half_space, floor)
    assert taken(matrix, s, distance, half_space).energy == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("shape", [(1, 20, 700), (3, 8, 40)])
def test_energy_is_what_training_minimises(shape, half_space):
    matrix = normals(*shape)
    of_training = np.mean(
        [float(hyperspherical_energy(group, half_space=half_space)) for group in matrix]
    )
    assert taken(matrix, half_space=half_space).energy == pytest.approx(of_training, rel=1e-5)


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("half_space", [False, True])
def test_angles_are_those_to_the_nearest(half_space):
    matrix = normals(4, 13, dtype="float64")
    # Two nearly the same, and one nearly opposite to another.
    matrix[:, 3] = 2 * matrix[:, 9] + 1e-6
    matrix[:, 5] = -matrix[:, 1] + 1e-6
    found = taken(matrix, half_space=half_space).nearest
    np.testing.assert_allclose(found, nearest_by_definition(matrix, half_space), atol=2e-6)


@pytest.mark.usefixtures("panel")
def test_a_neuron_repeats_earlier_ones_only_and_opposite_ones_in_half_space_only():
    matrix = normals(5, 12, dtype="float64")
    matrix[:, 2] = 7 * matrix[:, 0]
    matrix[:, 10] = matrix[:, 0]
    matrix[:, 11] = -matrix[:, 4]
    assert taken(matrix).duplicate == 2
    assert taken(matrix, half_space=True).duplicate == 3
    assert taken(matrix).nearest[[0, 2, 10]] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("degrees", "count"), [(0.09, 1), (0.11, 0)])
def test_a_tenth_of_a_degree_is_the_same_direction(degrees, count):
    turn = np.radians(degrees)
    matrix = np.array([[1, np.cos(turn), 0], [0, np.sin(turn), 0], [0, 0, 1]])
    assert taken(matrix).duplicate == count


@pytest.mark.usefixtures("panel")
def test_zero_neurons_count_in_the_energy_but_have_no_neighbours():
    matrix = normals(3, 9)
    matrix[:, [2, 7]] = 0
    found = taken(matrix, half_space=True)
    assert found.zero == 2
    assert found.duplicate == found.non_finite == 0
    assert np.isnan(found.nearest[[2, 7]]).all()
    others = np.delete(matrix, [2, 7], axis=1)
    np.testing.assert_allclose(
        np.delete(found.nearest, [2, 7]), nearest_by_definition(others, True), atol=1e-4
    )
    of_training = float(hyperspherical_energy(matrix, half_space=True))
    assert found.energy == pytest.approx(of_training, rel=1e-5)


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_neurons_that_are_not_finite_are_counted_and_hide_nothing(bad):
    matrix = normals(3, 9)
    matrix[1, 4] = bad
    found = taken(matrix)
    assert found.non_finite == 1
    assert found.zero == 0
    assert np.isnan(found.energy)
    assert np.isnan(found.nearest[4])
    others = np.delete(matrix, 4, axis=1)
    np.testing.assert_allclose(
        np.delete(found.nearest, 4), nearest_by_definition(others, False), atol=1e-4
    )


def test_nothing_but_zeros_or_a_single_neuron():
    found = taken(np.zeros((3, 4)))
    assert found.zero == 4
    assert np.isnan(found.nearest).all()
    single = taken(np.ones((3, 1)), half_space=True)
    assert single.energy == 0.25
    assert np.isnan(single.nearest).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_lengths_do_not_matter(scale):
    matrix = normals(6, 10, dtype="float64")
    one, other = taken(matrix), taken(matrix * scale)
    assert other.energy == pytest.approx(one.energy)
    np.testing.assert_allclose(one.nearest, other.nearest)


@given(st.permutations([0, 1, 2, 3]), st.integers(1, 3), st.sampled_from([1, 2]))
def test_arrays_on_the_host_are_the_matrices_of_training(order, count, groups):
    kernel = np.transpose(normals(2, 4, 6, 2), order)
    axes = order[:count]
    array = neuron_array(keras.ops.convert_to_tensor(kernel), axes, groups)
    matrix = keras.ops.convert_to_numpy(neuron_matrix(kernel, axes, groups))
    np.testing.assert_array_equal(array.reshape(matrix.shape), matrix)
