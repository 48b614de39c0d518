"""The pair potential: exact above epsilon, linear below it, finite everywhere."""

import math

import keras
import numpy as np
import oracle
import pytest
from helpers import DISTANCES, POWERS, SPACES, energy_value, on_every_potential
from hypothesis import given
from hypothesis import strategies as st

from keras_mhe._backend import compiled
from keras_mhe.energies._pairs import mean_over_points
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._riesz import RieszPotential


def pair(angle, n=2, dtype="float32"):
    """Returns two neurons of the plane at a given angle, and n - 2 more."""
    angles = np.concatenate([[0, angle], np.linspace(1.5, 4.5, n - 2)])
    return np.stack([np.cos(angles), np.sin(angles)]).astype(dtype)


def epsilon_of(softening, points, dimension):
    spec = PotentialSpec(softening=softening)
    return spec.potential(points, dimension, "float64").epsilon


class TestDefinition:
    @on_every_potential
    @pytest.mark.parametrize("softening", [0, 0.7])
    def test_values_match_the_definition(self, softening, s, distance, half_space, float64):
        # The last two pairs are softened. All distances are large compared with rounding errors.
        angles = np.concatenate([np.linspace(0.8, 3.0, 12), [0.1, 0.4]])
        epsilon = epsilon_of(softening, 2, 2)
        potential = RieszPotential(float(s), distance == "angular", half_space, epsilon)
        values, _ = potential(keras.ops.convert_to_tensor(np.cos(angles)))
        for got, angle in zip(keras.ops.convert_to_numpy(values), angles, strict=True):
            p, q = pair(angle, dtype="float64").T
            expected = oracle.pair_energy(p, q, s, distance, softening**2)
            if half_space:
                expected += oracle.pair_energy(p, -q, s, distance, softening**2)
            assert got == pytest.approx(expected, rel=1e-8)


class TestSoftening:
    """The potential is exact above epsilon and linear in the cosine below it."""

    @given(st.integers(1, 2000), st.integers(1, 5000))
    def test_epsilon_auto_follows_the_definition(self, points, dimension):
        got = epsilon_of("auto", points, dimension)
        assert got == pytest.approx(oracle.auto_epsilon(points, min(dimension, 300)), rel=1e-6) or (
            dimension > 300 and got == 0.1
        )

    @pytest.mark.parametrize(("s", "distance"), [(0, "angular"), (2, "euclidean")])
    def test_potential_is_linear_below_epsilon(self, s, distance, float64):
        epsilon = 0.25
        cosines = [1 - epsilon / 2, 0.9, 0.95, 1.0]
        kernels = [pair(math.acos(c), dtype="float64") for c in cosines]
        values = [energy_value(k, s, distance=distance, softening=0.5) for k in kernels]
        assert values[0] == pytest.approx(oracle.potential(cosines[0], s, distance))
        steps = np.diff(values) / np.diff(cosines)
        slope = oracle.potential_slope(cosines[0], s, distance)
        np.testing.assert_allclose(steps, slope, rtol=1e-6)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("softening", ["auto", 0.1, 1.0, 1.4])
    def test_potential_is_convex_and_repulsive(self, softening, distance, half_space, float64):
        cosines = np.linspace(-0.999, 1, 201)
        potential = RieszPotential(
            2.0,
            distance == "angular",
            half_space,
            epsilon_of(softening, 4, 2),
        )
        value, slope = (
            keras.ops.convert_to_numpy(x) for x in potential(keras.ops.convert_to_tensor(cosines))
        )
        assert np.all(np.isfinite(value))
        if distance == "euclidean":  # the angular potential is not convex in the cosine
            assert np.all(np.diff(slope) >= -1e-12)
        if half_space:
            assert np.all(slope[cosines > 1e-9] > 0)
            assert np.all(slope[cosines < -1e-9] < 0)
        else:
            assert np.all(slope > 0)

    def test_slope_is_the_derivative_of_the_value(self, float64):
        for s in POWERS:
            for angular in (False, True):
                for half_space in SPACES:
                    potential = RieszPotential(float(s), angular, half_space, 0.3)
                    # Near -1, where the angular slope is constant, it is not the derivative.
                    cosines = np.linspace(-0.95, 0.95, 50)
                    values = [
                        keras.ops.convert_to_numpy(potential(keras.ops.convert_to_tensor(c))[0])
                        for c in (cosines - 1e-6, cosines + 1e-6)
                    ]
                    slope = keras.ops.convert_to_numpy(
                        potential(keras.ops.convert_to_tensor(cosines))[1]
                    )
                    expected = (values[1] - values[0]) / 2e-6
                    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)

    def test_angular_slope_is_constant_near_opposite_neurons(self, float64):
        potential = RieszPotential(1.0, True, False, 0.1)
        at_limit, at_opposite = (
            float(potential(keras.ops.convert_to_tensor(np.array(c)))[1]) for c in (-1 + 1e-4, -1.0)
        )
        assert at_opposite == pytest.approx(at_limit)
        assert at_limit == pytest.approx(oracle.potential_slope(-1 + 1e-4, 1, "angular"), rel=1e-3)
        opposite = np.array([[1.0, -1.0], [0.0, 0.0]])
        assert energy_value(opposite, 1, distance="angular") == pytest.approx(1 / math.pi)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("epsilon", [1e-6, 1.3e-3, 0.1])
    def test_float32_loses_no_digits_to_the_edge(self, epsilon, distance, half_space):
        """In float32, cosines near 1 are exact, so only their own rounding limits an energy."""
        gaps = epsilon * np.array([0, 0.1, 0.45, 0.5, 0.55, 2])
        cosines = (1 - gaps).astype("float32")
        for s in (0.0, 2.0):
            potential = RieszPotential(s, distance == "angular", half_space, epsilon)
            values, _ = potential(keras.ops.convert_to_tensor(cosines))
            expected = potential.values(cosines.astype("float64"))
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(values), expected, rtol=2e-6, atol=1e-6
            )

    def test_softening_zero_gives_the_singular_potential(self, float64):
        kernel = pair(1e-3, dtype="float64")
        assert energy_value(kernel, 2, softening=0) == pytest.approx(1e6, rel=1e-6)
        assert energy_value(kernel, 2) < 50


class TestCurvature:
    """The second derivative of the potential, which learned projections need."""

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("s", POWERS)
    def test_curvature_is_the_derivative_of_the_slope(self, s, distance, float64):
        potential = RieszPotential(float(s), distance == "angular", False, 0.1)
        cosines = np.array([-0.99, -0.5, 0.0, 0.3, 0.94, 0.96, 1.0])
        step = 1e-6

        def slope(c):
            return keras.ops.convert_to_numpy(potential(keras.ops.convert_to_tensor(c))[1])

        expected = (slope(cosines + step) - slope(cosines - step)) / (2 * step)
        tensor = keras.ops.convert_to_tensor(cosines)
        got = keras.ops.convert_to_numpy(potential.curvature(tensor, potential(tensor)[1]))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("distance", DISTANCES)
    def test_curvature_is_finite_everywhere(self, distance):
        potential = RieszPotential(2.0, distance == "angular", False, 1e-6)
        cosines = keras.ops.convert_to_tensor(np.linspace(-1, 1, 1001, dtype="float32"))
        curvature = potential.curvature(cosines, potential(cosines)[1])
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(curvature)))


SPECS = [
    {"s": s, "distance": distance, "half_space": half_space}
    for s in (0, 2, 2.5)
    for distance in DISTANCES
    for half_space in SPACES
]
SPECS += [{"distance": "gaussian", "t": t, "half_space": h} for t in (2.0, 10.0) for h in SPACES]


class TestNumbersOfNeuronsInTensors:
    """Numbers that are known only at run time give the same potentials and energies."""

    @pytest.mark.parametrize(
        "options", SPECS, ids=lambda options: "-".join(map(str, options.values()))
    )
    @pytest.mark.parametrize(
        "dimension",
        [3, *(pytest.param(dimension, marks=pytest.mark.slow) for dimension in (1, 2, 64))],
    )
    def test_results_are_those_of_integers(self, options, dimension):
        spec = PotentialSpec(**options)
        cosines = np.linspace(-1, 1, 41, dtype="float32")

        def results(n, pairs, scale):
            potential = spec.potential(n, dimension, "float32")
            value, slope = potential(keras.ops.convert_to_tensor(cosines))
            sums = keras.ops.convert_to_tensor(np.float32([0.25, 0.5])) * scale
            energy, weight = mean_over_points(sums, pairs, n, potential)
            shares = [keras.ops.cast(x, "float32") for x in potential.shares(n)]
            return value, slope, energy, weight * scale, *shares

        def from_tensor(n):
            pairs = keras.ops.cast(n, "float32") * (keras.ops.cast(n, "float32") - 1)
            return results(n, pairs, pairs)

        program = compiled(from_tensor, ((), "int32"))
        for n in (1, 2, 3, 5, 40, 1000, 5000):
            got = program(keras.ops.convert_to_tensor(n, "int32"))
            expected = results(n, n * (n - 1), float(n * (n - 1)))
            for x, y in zip(got, expected, strict=True):
                x, y = (keras.ops.convert_to_numpy(z) for z in (x, y))
                scale = np.abs(y).max() if y.size else 0.0
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * scale)
                assert np.all(np.isfinite(x))

    @pytest.mark.parametrize("options", SPECS[-4:] + SPECS[4:8], ids=str)
    def test_no_neurons_have_no_energy(self, options):
        zero = keras.ops.convert_to_tensor(0, "int32")
        potential = PotentialSpec(**options).potential(zero, 8)
        sums = keras.ops.zeros((3,))
        energy, weight = mean_over_points(sums, keras.ops.convert_to_tensor(0.0), zero, potential)
        share, constant = potential.shares(zero)
        for number in (energy, weight, share, constant):
            assert float(keras.ops.convert_to_numpy(number)) == 0

    @pytest.mark.parametrize("half_space", SPACES)
    def test_softening_given_as_a_distance_does_not_depend_on_the_number(self, half_space):
        spec = PotentialSpec(2, "angular", half_space, softening=0.3)
        assert spec.potential(keras.ops.convert_to_tensor(7, "int32"), 3) == spec.potential(7, 3)
