"""Closed forms: Gram matrices, and energies that gradient steps from random sets do not lower."""

import numpy as np
import pytest

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.initializers._closed_forms import closed_form
from keras_mhe.initializers._descent import _energy_and_gradient, descend, normalized
from keras_mhe.initializers._directions import low_energy_directions

pytestmark = pytest.mark.once


def gram(n, d, half_space=False, s=2.0, seed=0):
    """The cosines between the directions; checks their shape and norms."""
    rng = np.random.default_rng(seed)
    unit = low_energy_directions(n, d, PotentialSpec(s, half_space=half_space), None, rng)
    assert unit.shape == (d, n)
    cosines = unit.T @ unit
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-12)
    return cosines


def off_diagonal(cosines):
    return cosines[~np.eye(len(cosines), dtype=bool)]


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 5), (3, 2), (4, 3), (5, 64), (64, 63), (64, 64)])
def test_up_to_one_neuron_more_than_coordinates_are_a_simplex(n, d):
    np.testing.assert_allclose(off_diagonal(gram(n, d)), -1 / (n - 1), atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 2), (3, 5), (64, 64), (64, 576)])
def test_in_half_space_up_to_as_many_neurons_as_coordinates_are_orthonormal(n, d):
    np.testing.assert_allclose(gram(n, d, half_space=True), np.eye(n), atol=1e-12)


def test_in_half_space_one_neuron_more_gives_the_lines_of_a_simplex():
    cosines = gram(9, 8, half_space=True)
    np.testing.assert_allclose(np.abs(off_diagonal(cosines)), 1 / 8, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("half_space", [False, True])
def test_in_two_dimensions_neurons_are_a_regular_polygon(n, half_space):
    rng = np.random.default_rng(0)
    x, y = low_energy_directions(n, 2, PotentialSpec(half_space=half_space), None, rng)
    period = np.pi if half_space else 2 * np.pi
    angles = np.sort(np.arctan2(y, x) % period)
    gaps = np.diff(np.append(angles, angles[0] + period))
    np.testing.assert_allclose(gaps, period / n, atol=1e-12)


@pytest.mark.parametrize("half_space", [False, True])
def test_in_one_dimension_half_of_the_neurons_have_each_sign(half_space):
    cosines = gram(7, 1, half_space)
    assert sorted(np.sum(cosines > 0, axis=1)) == [3] * 3 + [4] * 4


def test_twice_as_many_neurons_as_coordinates_are_the_cross_polytope():
    cosines = np.sort(gram(16, 8), axis=1)
    np.testing.assert_allclose(cosines, [[-1, *[0] * 14, 1]] * 16, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "s", "sizes"),
    [(10, 2, [5, 5]), (11, 0, [3, 4, 4]), (14, 2, [2, 2, 2, 2, 3, 3]), (11, 4, [2, 2, 7])],
)
def test_numbers_between_give_orthogonal_simplexes(n, s, sizes):
    cosines = gram(n, 8, s=s)
    assert np.max(off_diagonal(cosines)) < 1e-12
    in_simplex = np.sort(np.sum(np.abs(cosines) > 1e-12, axis=1))
    np.testing.assert_array_equal(in_simplex, np.sort(np.repeat(sizes, sizes)))
    for row in cosines:
        m = np.sum(np.abs(row) > 1e-12)
        np.testing.assert_allclose(np.min(row), -1 / (m - 1), atol=1e-12)


@pytest.mark.parametrize("s", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("n", "d", "half_space"), [(4, 3, 0), (5, 3, 0), (6, 4, 0), (7, 2, 0), (8, 5, 0), (5, 4, 1)]
)
def test_gradient_steps_from_random_sets_find_no_lower_energy(n, d, half_space, s):
    potential = PotentialSpec(s, half_space=bool(half_space)).potential(n, d, "float64")
    points = closed_form(n, d, s, bool(half_space))
    energy, gradient = _energy_and_gradient(points, potential)
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    for seed in range(5):
        start = normalized(np.random.default_rng(seed).standard_normal((d, n)))
        found, _ = _energy_and_gradient(descend(start, potential, 300), potential)
        assert found >= energy * (1 - np.sign(energy) * 1e-9)


def test_in_half_space_directions_are_on_both_sides_of_every_line():
    """All neurons of a ReLU layer on one side of a line would ignore the other side."""
    rng = np.random.default_rng(0)
    unit = low_energy_directions(64, 2, PotentialSpec(half_space=True), None, rng)
    for direction in np.eye(2):
        assert 16 < np.sum(direction @ unit > 0) < 48


def test_seeds_rotate_and_reorder_a_set():
    one, other = (
        low_energy_directions(4, 3, PotentialSpec(), None, np.random.default_rng(seed))
        for seed in (0, 1)
    )
    assert np.max(np.abs(one - other)) > 0.1
    np.testing.assert_allclose(one.T @ one, other.T @ other, atol=1e-12)
