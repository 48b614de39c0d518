"""The attainable energy: known minima, and the best sets that gradient steps find."""

import math

import numpy as np
import oracle
import pytest
from helpers import normals

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._quadrature import pair_distribution
from keras_mhe.reference import attainable_energy, lower_bound, uniform_energy
from keras_mhe.reference._attainable import position_unit

pytestmark = pytest.mark.once

# Known minima of Thomson's problem, as sums over pairs.
THOMSON = {
    2: 0.5,
    3: 1.732050808,
    4: 3.674234614,
    5: 6.474691495,
    6: 9.985281374,
    12: 49.165253058,
    32: 412.261274651,
    72: 2255.001190975,
    100: 4448.350634331,
    122: 6698.374499261,
}
SPACES = [False, True]


@pytest.mark.parametrize("n", THOMSON)
def test_known_minima_are_at_most_one_percent_above(n):
    least = 2 * THOMSON[n] / (n * (n - 1))
    estimate = attainable_energy(n, 3, s=1, softening=0)
    assert estimate <= least + 1e-9
    assert least - estimate <= 0.01 * (uniform_energy(n, 3, s=1) - estimate)
    if n in (2, 3, 4, 6, 12):
        assert estimate == pytest.approx(least, rel=1e-8)


@pytest.mark.parametrize("s", [0, 1, 2, 4])
@pytest.mark.parametrize("half_space", SPACES)
def test_regular_polygons_attain_it(s, half_space):
    angles = np.arange(7) * (1 if half_space else 2) * np.pi / 7
    polygon = np.array([np.cos(angles), np.sin(angles)])
    options = {"s": s, "half_space": half_space}
    expected = oracle.energy(
        polygon, epsilon=oracle.auto_epsilon(7 * (1 + half_space), 2), **options
    )
    assert attainable_energy(7, 2, **options) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("half_space", SPACES)
@pytest.mark.parametrize(("n", "d"), [(2, 3), (4, 3), (9, 8), (8, 8), (64, 576)])
@pytest.mark.parametrize("s", [0, 2])
def test_it_is_the_lower_bound_where_neurons_attain_that(n, d, s, half_space):
    if half_space and n > d:
        n = d
    options = {"s": s, "half_space": half_space}
    assert attainable_energy(n, d, **options) == pytest.approx(lower_bound(n, d, **options))


@pytest.mark.parametrize("half_space", SPACES)
@pytest.mark.parametrize(("n", "d"), [(20, 4), (65, 32), (100, 3), (1000, 32), (100_000, 3)])
def test_it_is_between_the_lower_bound_and_random_neurons(n, d, half_space):
    options = {"half_space": half_space, "softening": "auto"}
    estimate = attainable_energy(n, d, **options)
    assert lower_bound(n, d, **options) <= estimate + 1e-12
    assert estimate < uniform_energy(n, d, **options)


@pytest.mark.parametrize("half_space", SPACES)
@pytest.mark.parametrize(("n", "d"), [(5, 3), (40, 3), (40, 6), (90, 9), (513, 4)])
def test_weights_integrate_polynomials_over_the_sphere(n, d, half_space):
    """A design of n points has the mean of every polynomial of low degree exactly."""
    cosines, weights = pair_distribution(n, d, half_space)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    for degree in (2,) if n < 2 * d else (2, 4):
        # The mean of c^2 is 1 / d, and that of c^4 is 3 / (d (d + 2)).
        mean = math.prod(range(1, degree, 2)) / math.prod(range(d, d + degree, 2))
        if degree == 2 or n >= math.comb(d + 1, 2) * (1 if half_space else 2):
            got = (1 + (n - 1) * weights @ cosines**degree) / n
            assert got == pytest.approx(mean)


def descend(points, s, half_space, steps=2000):
    """Returns unit neurons after gradient steps on the singular energy."""
    n = points.shape[1]
    for step in range(steps):
        points = points / np.linalg.norm(points, axis=0)
        cosine = points.T @ points
        np.fill_diagonal(cosine, -2.0)
        slope = s * (2 - 2 * cosine) ** (-s / 2 - 1)
        if half_space:
            np.fill_diagonal(cosine, 0.0)
            slope = s * ((2 - 2 * cosine) ** (-s / 2 - 1) - (2 + 2 * cosine) ** (-s / 2 - 1))
        np.fill_diagonal(slope, 0.0)
        force = points @ slope
        force -= points * np.sum(points * force, axis=0)
        points = points - 0.3 / (1 + step / 100) * force / n / np.abs(force / n).max() / 3
    return points / np.linalg.norm(points, axis=0)


@pytest.mark.parametrize(("n", "d", "half_space"), [(40, 8, False), (60, 6, True), (100, 16, True)])
def test_neurons_nearly_reach_it(n, d, half_space):
    points = descend(normals(d, n, dtype="float64"), 2, half_space)
    spec = PotentialSpec(2.0, half_space=half_space)
    epsilon = spec.potential(n, d).epsilon
    energy = oracle.energy(points, 2, half_space=half_space, epsilon=epsilon)
    best, span = position_unit(n, d, spec)
    assert -0.001 <= (energy - best) / span < 0.1


def test_units_are_zero_where_all_sets_have_the_same_energy():
    for half_space in SPACES:
        assert position_unit(1, 5, PotentialSpec(half_space=half_space))[1] == 0
        assert position_unit(4, 1, PotentialSpec(half_space=half_space))[1] == 0


def test_neurons_of_one_coordinate_share_two_directions():
    # Of three neurons, two are equal: 4 of 6 ordered pairs are opposite.
    expected = oracle.energy(np.array([[1.0, 1.0, -1.0]]), epsilon=0.1)
    assert attainable_energy(3, 1) == pytest.approx(expected, rel=1e-6)
