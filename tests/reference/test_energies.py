"""Energies of random neurons and lower bounds: compared with integrals, simulation and geometry."""

import itertools
import math

import numpy as np
import oracle
import pytest
from helpers import normals
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gamma, gammaln, ive, psi

from keras_mhe.reference import attainable_energy, lower_bound, position, uniform_energy

pytestmark = pytest.mark.once

POWERS = [0, 0.5, 1, 2, 3]


def simplex(d):
    """Returns d + 1 points with equal distances in d dimensions."""
    corners = np.eye(d + 1) - 1 / (d + 1)
    return (np.linalg.svd(corners)[2][:d] @ corners)[:, : d + 1]


def cross_polytope(d):
    return np.concatenate([np.eye(d), -np.eye(d)], axis=1)


def icosahedron():
    golden = (1 + math.sqrt(5)) / 2
    pairs = itertools.product([1, -1], [golden, -golden])
    points = [np.roll([0, a, b], shift) for a, b in pairs for shift in range(3)]
    return np.array(points).T


def lines_of(points):
    """Returns one point of each pair of opposite points."""
    return np.array([point for point in points.T if tuple(point) > tuple(-point)]).T


def equiangular_28():
    """28 equiangular lines in 7 dimensions: permutations of (3, 3, -1, -1, -1, -1, -1, -1)."""
    points = -np.ones((8, 28))
    for column, pair in enumerate(itertools.combinations(range(8), 2)):
        points[list(pair), column] = 3
    basis = np.linalg.svd(np.ones((1, 8)))[2][1:]
    return basis @ points


def energy_by_definition(points, s, distance, half_space=False):
    return oracle.energy(points, s, distance, half_space, epsilon=0.0)


@pytest.mark.parametrize("d", [3, 4, 8, 64, 577])
@pytest.mark.parametrize("s", POWERS)
def test_uniform_energy_matches_the_closed_form(d, s):
    if s >= d - 1:
        pytest.skip("the mean is infinite")
    if s == 0:
        expected = -math.log(2) + (psi(d - 1) - psi((d - 1) / 2)) / 2
    else:
        logarithm = (d - 2 - s) * math.log(2) - 0.5 * math.log(math.pi)
        scale = np.exp(logarithm / 2)
        if d < 100:
            expected = scale * scale * gamma(d / 2) * gamma((d - 1 - s) / 2) / gamma(d - 1 - s / 2)
        else:
            expected = (
                quad(lambda t: (2 * np.sin(t / 2)) ** -s * np.sin(t) ** (d - 2), 0, np.pi)[0]
                / quad(lambda t: np.sin(t) ** (d - 2), 0, np.pi)[0]
            )
    assert uniform_energy(10, d, s) == pytest.approx(expected, rel=1e-9)
    antipodal = -math.log(2) if s == 0 else 2.0**-s
    half = (9 * 2 * expected + antipodal) / 19
    assert uniform_energy(10, d, s, half_space=True) == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("d", [2, 3, 5, 30])
@pytest.mark.parametrize("s", [0, 1, 2, 6])
@pytest.mark.parametrize("distance", ["euclidean", "angular"])
@pytest.mark.parametrize("softening", ["auto", 0, 1.2])
def test_softened_uniform_energy_is_an_integral_over_the_angle(d, s, distance, softening):
    n = 500
    epsilon = oracle.auto_epsilon(n, d)
    if softening != "auto":
        epsilon = max(softening**2, 4 * float(np.finfo("float32").eps))
    edge = math.acos(1 - epsilon / 2)
    slope = oracle.potential_slope(1 - epsilon / 2, s, distance) if epsilon > 1e-4 else None
    if slope is None:  # central differences are inaccurate at such small distances
        length = math.sqrt(epsilon)
        slope = length ** (-s - 2) * (s or 1)

    def pair(angle):
        length = 2 * math.sin(max(angle, edge) / 2) if distance == "euclidean" else max(angle, edge)
        value = -math.log(length) if s == 0 else length**-s
        return value + slope * max(0.0, epsilon / 2 - 2 * math.sin(angle / 2) ** 2)

    def integral(function):
        breakpoints = [0, edge, min(4 * edge, 1.5), math.pi / 2, math.pi]
        return sum(
            quad(lambda t: function(t) * math.sin(t) ** (d - 2), *ends, epsrel=1e-11, epsabs=0)[0]
            for ends in itertools.pairwise(breakpoints)
        )

    expected = integral(pair) / integral(lambda t: 1.0)
    value = uniform_energy(n, d, s, distance=distance, softening=softening)
    assert value == pytest.approx(expected, rel=1e-5)


# Means of |u - v|^(-s), and of the angular potential, by 25 digits of mpmath.
EXACT = [
    (2, 0, "angular", 0, -0.14487642170873197),
    (2, 20, "angular", 1.3, 0.0038286843020623406),
    (3, 1, "angular", 0, 0.9258390508723218),
    (3, 6, "euclidean", 0, 3298534883327.992),
    (3, 6, "angular", 0.3, 90.52794967519038),
    (32, 31, "angular", 0, 13.757741022232183),
    (60, 59, "euclidean", 0, 18.406690537119328),
    (128, 64, "euclidean", None, 6.978076345637653e-08),
    (128, 64, "euclidean", 0.3, 6.978076345637653e-08),
    (128, 256, "euclidean", 1.3, 1.7403068650677395e-30),
    (256, 128, "euclidean", None, 3.723657856416373e-15),
    (256, 128, "euclidean", 1.3, 6.105530734700411e-17),
    (256, 128, "angular", None, 1.6291577977047751e-18),
    (1000, 500, "angular", 1.3, 6.41156777207633e-82),
    (1000000, 0, "euclidean", None, -0.34657334027959763),
    (1000000, 40, "euclidean", None, 9.538746133495364e-07),
    (1000000, 999998.5, "euclidean", None, 38.462145481085315),
    (100000000, 1, "euclidean", None, 0.707106783838198),
]


@pytest.mark.parametrize(("d", "s", "distance", "softening", "expected"), EXACT)
def test_uniform_energy_has_at_least_eight_digits(d, s, distance, softening, expected):
    """The integrand has its peak far below a right angle, or at the edge of the softening."""
    value = uniform_energy(50, d, s, distance=distance, softening=softening)
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [40, 41, 42, 1000, 10**5])
@pytest.mark.parametrize("s", [0, 1e-3, 0.5, 20])
def test_closed_form_is_the_integral_with_the_smallest_softening(d, s):
    """Large gamma functions cancel, and the series for them begin at 41 coordinates."""
    softened = uniform_energy(50, d, s, softening=0)
    assert softened == pytest.approx(uniform_energy(50, d, s), rel=1e-11)


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "angular"])
@pytest.mark.parametrize(("n", "d", "s"), [(12, 2, 2), (20, 3, 2), (20, 3, 0), (16, 20, 1)])
def test_random_neurons_have_the_uniform_energy_on_average(n, d, s, distance, half_space):
    epsilon = oracle.auto_epsilon(2 * n if half_space else n, d)
    energies = [
        oracle.energy(normals(d, n, seed=i), s, distance, half_space, epsilon) for i in range(40)
    ]
    error = np.std(energies) / math.sqrt(len(energies))
    options = {"distance": distance, "half_space": half_space, "softening": "auto"}
    assert abs(np.mean(energies) - uniform_energy(n, d, s, **options)) < 4 * error


def test_uniform_energy_in_one_dimension_is_the_mean_of_two_positions():
    epsilon = 0.1  # equal neurons are softened: the tangent has slope 2 / epsilon^2 in the cosine
    same = 1 / epsilon + 2 * epsilon**-2 * epsilon / 2
    assert uniform_energy(5, 1) == pytest.approx((same + 1 / 4) / 2)


@pytest.mark.parametrize("s", POWERS)
@pytest.mark.parametrize("d", [2, 3, 10])
def test_lower_bound_in_full_space_is_the_energy_of_the_simplex(d, s):
    for n in (d, d + 1):
        points = simplex(d) if n == d + 1 else np.pad(simplex(d - 1), [(0, 1), (0, 0)])
        assert lower_bound(n, d, s) == pytest.approx(energy_by_definition(points, s, "euclidean"))


@pytest.mark.parametrize("distance", ["euclidean", "angular"])
@pytest.mark.parametrize("s", POWERS)
@pytest.mark.parametrize(
    "lines",
    [np.eye(6)[:, :4], np.eye(5), lines_of(icosahedron()), equiangular_28()],
    ids=["4 of 6 axes", "5 axes", "icosahedron", "28 lines"],
)
def test_lower_bound_in_half_space_is_the_energy_of_equiangular_lines(lines, s, distance):
    d, n = lines.shape
    bound = lower_bound(n, d, s, distance=distance, half_space=True)
    assert bound == pytest.approx(energy_by_definition(lines, s, distance, half_space=True))
    energy = energy_by_definition(lines, s, distance, half_space=True)
    found = position(energy, n, d, s, distance=distance, half_space=True)
    assert found == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("s", [0, 1, 2])
@pytest.mark.parametrize("points", [icosahedron(), cross_polytope(4)], ids=["12 in 3", "8 in 4"])
def test_best_known_sets_are_between_bound_and_random(points, s):
    d, n = points.shape
    result = position(energy_by_definition(points, s, "euclidean"), n, d, s)
    assert 0 < result < 0.75


def test_angular_bound_is_none_where_a_known_set_is_below_the_formula():
    cross = cross_polytope(4)
    formula = -math.log(math.acos(-1 / 7))
    # The cross polytope has less energy than the formula gives, so there is no bound.
    assert energy_by_definition(cross, 0, "angular") < formula
    assert lower_bound(8, 4, 0, distance="angular") is None
    assert position(0.0, 8, 4, 0, distance="angular") is None
    assert lower_bound(8, 4, 2, distance="angular") == pytest.approx(math.acos(-1 / 7) ** -2)
    assert energy_by_definition(cross, 2, "angular") > lower_bound(8, 4, 2, distance="angular")


@given(
    st.integers(2, 12),
    st.integers(1, 6),
    st.sampled_from(POWERS),
    st.sampled_from(["euclidean", "angular"]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0, 1.3]),
    st.integers(0, 2**32 - 1),
)
def test_energy_is_never_below_the_lower_bound(n, d, s, distance, half_space, softening, seed):
    options = {"distance": distance, "half_space": half_space}
    bound = lower_bound(n, d, s, softening=softening, **options)
    if bound is None:
        return
    rng = np.random.default_rng(seed)
    # Many neurons are equal or opposite. In that range, potentials are not convex.
    points = rng.standard_normal((d, n))
    points[:, rng.random(n) < 0.5] = points[:, :1]
    points *= rng.choice([-1, 1], n)
    epsilon = max(softening**2, 4 * float(np.finfo("float32").eps))
    energy = oracle.energy(points, s, epsilon=epsilon, **options)
    assert energy >= bound - 1e-6 * abs(bound)


def test_strong_softening_removes_the_half_space_bound():
    # With softening up to a right angle, equal lines no longer have the largest energy.
    assert lower_bound(100, 2, half_space=True, softening=1.4) is None
    assert lower_bound(100, 2, half_space=True, softening=0.7) is not None


def test_position_is_none_where_all_sets_have_the_same_energy():
    assert lower_bound(1, 5) == uniform_energy(1, 5) == 0
    assert lower_bound(1, 5, half_space=True) == uniform_energy(1, 5, half_space=True) == 0.25
    assert position(0.0, 1, 5) is None
    # In one dimension, all sets have the same energy in half space.
    assert position(3.0, 4, 1, half_space=True) is None


@pytest.mark.parametrize("function", [uniform_energy, lower_bound, attainable_energy])
@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((0, 3), {}, ValueError),
        ((3, 0), {}, ValueError),
        ((2.5, 3), {}, TypeError),
        ((3, 3), {"s": -1}, ValueError),
        ((3, 3), {"s": 3000}, ValueError),
        ((3, 3), {"distance": "cosine"}, ValueError),
        ((3, 3), {"half_space": 1}, TypeError),
        ((3, 3), {"softening": 2}, ValueError),
        ((3, 3), {"s": 2.0, "distance": "gaussian"}, ValueError),
        ((3, 3), {"softening": 0.1, "distance": "gaussian"}, ValueError),
        ((3, 3), {"t": 2.0}, ValueError),
    ],
)
def test_invalid_arguments_raise_an_error(function, arguments, options, error):
    with pytest.raises(error, match="Received: "):
        function(*arguments, **options)


RATES = [0.01, 2.0, 15.0, 100.0]


class TestGaussian:
    """References of `log mean exp(-t |u - v|^2)`."""

    @pytest.mark.parametrize("d", [2, 3, 8, 100])
    @pytest.mark.parametrize("t", RATES)
    def test_uniform_energy_is_a_bessel_function(self, d, t):
        order = d / 2 - 1
        # exp(-2t) times the modified Bessel function
        bessel = ive(order, 2 * t)
        mean = np.exp(gammaln(d / 2) - order * np.log(t) + np.log(bessel))
        options = {"distance": "gaussian", "t": t}
        assert uniform_energy(10, d, **options) == pytest.approx(np.log(mean), rel=1e-9)
        half = np.log((9 * 2 * mean + np.exp(-4 * t)) / 19)
        assert uniform_energy(10, d, half_space=True, **options) == pytest.approx(half, rel=1e-9)

    def test_cosines_of_many_coordinates_are_normal(self):
        got = uniform_energy(10, 10**6, distance="gaussian", t=5.0)
        assert got == pytest.approx(-10 + 50 / 10**6, abs=1e-9)

    @pytest.mark.parametrize("half_space", [False, True])
    def test_mean_of_random_neurons_is_that_of_the_uniform_energy(self, half_space):
        means = [
            np.exp(oracle.gaussian_energy(normals(3, 20, seed=i), 2.0, half_space))
            for i in range(40)
        ]
        expected = uniform_energy(20, 3, distance="gaussian", half_space=half_space)
        error = np.std(means) / math.sqrt(len(means))
        assert abs(np.mean(means) - math.exp(expected)) < 4 * error

    @pytest.mark.parametrize("t", RATES)
    def test_simplex_and_orthonormal_neurons_reach_the_bounds(self, t):
        options = {"distance": "gaussian", "t": t}
        for points, half_space in ((simplex(4), False), (np.eye(6)[:, :4], True)):
            d, n = points.shape
            energy = oracle.gaussian_energy(points, t, half_space)
            for function in (lower_bound, attainable_energy):
                bound = function(n, d, half_space=half_space, **options)
                assert bound == pytest.approx(energy, rel=1e-9)
            found = position(energy, n, d, half_space=half_space, **options)
            assert found == pytest.approx(0, abs=1e-6)
            random = uniform_energy(n, d, half_space=half_space, **options)
            assert position(random, n, d, half_space=half_space, **options) == pytest.approx(1)

    @given(
        st.integers(1, 12),
        st.integers(1, 6),
        st.sampled_from(RATES),
        st.booleans(),
        st.integers(0, 2**32 - 1),
    )
    def test_energy_is_never_below_the_bounds(self, n, d, t, half_space, seed):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((d, n))
        points[:, rng.random(n) < 0.5] = points[:, :1]
        points *= rng.choice([-1, 1], n)
        energy = oracle.gaussian_energy(points, t, half_space)
        options = {"distance": "gaussian", "t": t, "half_space": half_space}
        bound, attainable = (f(n, d, **options) for f in (lower_bound, attainable_energy))
        assert energy >= attainable - 1e-9 * (1 + t)
        assert attainable >= bound - 1e-9 * (1 + t)

    def test_position_is_none_where_all_sets_have_the_same_energy(self):
        options = {"distance": "gaussian", "half_space": True}
        assert position(0.0, 1, 5, distance="gaussian") is None
        assert position(0.0, 1, 5, **options) is None
        assert position(0.0, 4, 1, **options) is None
