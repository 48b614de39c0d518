"""Neuron statistics match their definitions in loops over all pairs, within and across panels."""

import keras
import numpy as np
import oracle
import pytest
from helpers import normals, on_every_potential
from hypothesis import given
from hypothesis import strategies as st

from keras_mhe import hyperspherical_energy
from keras_mhe.analysis import _neuron_statistics as module
from keras_mhe.analysis._neuron_statistics import neuron_statistics, neuron_turns
from keras_mhe.energies._neurons import neuron_array, neuron_matrix
from keras_mhe.energies._potential import PotentialSpec

pytestmark = pytest.mark.once


@pytest.fixture(params=[4, 512])
def panel(request, monkeypatch):
    """The panel size: with 4, a small kernel takes the path of a large one."""
    monkeypatch.setattr(module, "_PANEL", request.param)


def statistics_of(matrix, s=2.0, distance="euclidean", half_space=False, softening="auto"):
    """The neuron statistics of a matrix, or of an array of groups."""
    matrix = np.asarray(matrix, "float64")
    potential = PotentialSpec(s, distance, half_space, softening).of_neurons(
        np.zeros(matrix.shape, "float32")
    )
    return neuron_statistics(matrix.reshape(-1, *matrix.shape[-2:]), potential)


def nearest_angles_by_definition(matrix, half_space):
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
def test_energy_matches_the_definition(s, distance, half_space):
    matrix = normals(3, 11)
    epsilon = oracle.auto_epsilon(22 if half_space else 11, 3)
    expected = oracle.energy(matrix, s, distance, half_space, epsilon)
    assert statistics_of(matrix, s, distance, half_space).energy == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("shape", [(1, 20, 700), (3, 8, 40)])
def test_energy_equals_the_energy_minimized_in_training(shape, half_space):
    matrix = normals(*shape)
    expected = np.mean(
        [float(hyperspherical_energy(group, half_space=half_space)) for group in matrix]
    )
    assert statistics_of(matrix, half_space=half_space).energy == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("half_space", [False, True])
def test_nearest_angles_match_the_definition(half_space):
    matrix = normals(4, 13, dtype="float64")
    # Two neurons are nearly equal, and two are nearly opposite.
    matrix[:, 3] = 2 * matrix[:, 9] + 1e-6
    matrix[:, 5] = -matrix[:, 1] + 1e-6
    found = statistics_of(matrix, half_space=half_space).nearest_angles
    np.testing.assert_allclose(found, nearest_angles_by_definition(matrix, half_space), atol=2e-6)


@pytest.mark.usefixtures("panel")
def test_duplicates_count_repeated_directions_and_in_half_space_opposite_ones():
    matrix = normals(5, 12, dtype="float64")
    matrix[:, 2] = 7 * matrix[:, 0]
    matrix[:, 10] = matrix[:, 0]
    matrix[:, 11] = -matrix[:, 4]
    assert statistics_of(matrix).duplicate == 2
    assert statistics_of(matrix, half_space=True).duplicate == 3
    assert statistics_of(matrix).nearest_angles[[0, 2, 10]] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("degrees", "count"), [(0.09, 1), (0.11, 0)])
def test_neurons_within_a_tenth_of_a_degree_are_duplicates(degrees, count):
    angle = np.radians(degrees)
    matrix = np.array([[1, np.cos(angle), 0], [0, np.sin(angle), 0], [0, 0, 1]])
    assert statistics_of(matrix).duplicate == count


@pytest.mark.usefixtures("panel")
def test_zero_neurons_count_in_the_energy_but_have_no_nearest_angle():
    matrix = normals(3, 9)
    matrix[:, [2, 7]] = 0
    found = statistics_of(matrix, half_space=True)
    assert found.zero == 2
    assert found.duplicate == found.non_finite == 0
    assert np.isnan(found.nearest_angles[[2, 7]]).all()
    others = np.delete(matrix, [2, 7], axis=1)
    np.testing.assert_allclose(
        np.delete(found.nearest_angles, [2, 7]),
        nearest_angles_by_definition(others, True),
        atol=1e-4,
    )
    expected = float(hyperspherical_energy(matrix, half_space=True))
    assert found.energy == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_neurons_are_counted_and_do_not_affect_other_angles(bad):
    matrix = normals(3, 9)
    matrix[1, 4] = bad
    found = statistics_of(matrix)
    assert found.non_finite == 1
    assert found.zero == 0
    assert np.isnan(found.energy)
    assert np.isnan(found.nearest_angles[4])
    others = np.delete(matrix, 4, axis=1)
    np.testing.assert_allclose(
        np.delete(found.nearest_angles, 4), nearest_angles_by_definition(others, False), atol=1e-4
    )


def test_all_zero_neurons_and_single_neurons_have_no_nearest_angle():
    found = statistics_of(np.zeros((3, 4)))
    assert found.zero == 4
    assert np.isnan(found.nearest_angles).all()
    single = statistics_of(np.ones((3, 1)), half_space=True)
    assert single.energy == 0.25
    assert np.isnan(single.nearest_angles).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_statistics_are_invariant_to_the_norm_of_neurons(scale):
    matrix = normals(6, 10, dtype="float64")
    one, other = statistics_of(matrix), statistics_of(matrix * scale)
    assert other.energy == pytest.approx(one.energy)
    np.testing.assert_allclose(one.nearest_angles, other.nearest_angles)


@given(st.permutations([0, 1, 2, 3]), st.integers(1, 3), st.sampled_from([1, 2]))
def test_neuron_array_equals_the_neuron_matrix_of_training(order, count, groups):
    kernel = np.transpose(normals(2, 4, 6, 2), order)
    axes = order[:count]
    array = neuron_array(keras.ops.convert_to_tensor(kernel), axes, groups)
    matrix = keras.ops.convert_to_numpy(neuron_matrix(kernel, axes, groups))
    np.testing.assert_array_equal(array.reshape(matrix.shape), matrix)


class TestTurns:
    @staticmethod
    def rotated(turn):
        """A pair of kernels; neuron `j` of the second one is rotated by `turn[j]` degrees."""
        u, v = np.linalg.qr(normals(9, 2, dtype="float64"))[0].T
        after = np.outer(u, np.cos(np.radians(turn))) + np.outer(v, np.sin(np.radians(turn)))
        return np.outer(u, np.ones(len(turn)))[None], after[None]

    def test_small_and_nearly_opposite_turns_are_accurate(self):
        turn = np.array([1e-6, 1e-3, 45, 90, 135, 180 - 1e-3])
        np.testing.assert_allclose(neuron_turns(*self.rotated(turn)), turn, rtol=1e-6)

    @pytest.mark.parametrize("scale", [1e-300, 3.0, 1e300])
    def test_lengths_do_not_matter(self, scale):
        before, after = self.rotated(np.array([0.0, 20, 180]))
        np.testing.assert_allclose(neuron_turns(before, scale * after), [0, 20, 180], atol=1e-12)

    def test_groups_are_in_the_order_of_the_neurons(self):
        before = normals(2, 5, 3, dtype="float64")
        after = before * [[[1]], [[-1]]]
        np.testing.assert_array_equal(neuron_turns(before, after), [0] * 3 + [180] * 3)
