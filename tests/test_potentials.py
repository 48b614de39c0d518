"""The pair potential: exact above the floor, a straight line below, finite everywhere."""

import math

import keras
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import DISTANCES, POWERS, SPACES, number, on_every_potential

from keras_mhe import potentials


def pair(angle, n=2, dtype="float32"):
    """Two neurons at an angle in the plane, and n - 2 more."""
    angles = np.concatenate([[0, angle], np.linspace(1.5, 4.5, n - 2)])
    return np.stack([np.cos(angles), np.sin(angles)]).astype(dtype)


class TestDefinition:
    @on_every_potential
    @pytest.mark.parametrize("softening", [0, 0.7])
    def test_values_are_those_of_two_points(self, softening, s, distance, half_space, float64):
        # The last pairs are softened; none is so near that rounding tells the distance.
        angles = np.concatenate([np.linspace(0.8, 3.0, 12), [0.1, 0.4]])
        floor = potentials.softening_floor(softening, 2, 2, "float64")
        potential = potentials.Potential(float(s), distance == "angular", half_space, floor)
        values, _ = potential(keras.ops.convert_to_tensor(np.cos(angles)))
        for got, angle in zip(keras.ops.convert_to_numpy(values), angles, strict=True):
            p, q = pair(angle, dtype="float64").T
            expected = oracle.pair_energy(p, q, s, distance, softening**2)
            if half_space:
                expected += oracle.pair_energy(p, -q, s, distance, softening**2)
            assert got == pytest.approx(expected, rel=1e-8)


class TestSoftening:
    """Exact above the floor, a straight line in the cosine below it."""

    @given(st.integers(1, 2000), st.integers(1, 5000))
    def test_auto_is_the_floor_of_the_definition(self, points, dimension):
        got = potentials.softening_floor("auto", points, dimension, "float64")
        assert got == pytest.approx(oracle.auto_floor(points, min(dimension, 300)), rel=1e-6) or (
            dimension > 300 and got == 0.1
        )

    @pytest.mark.parametrize(("s", "distance"), [(0, "angular"), (2, "euclidean")])
    def test_line_below_the_floor(self, s, distance, float64):
        floor = 0.25
        cosines = [1 - floor / 2, 0.9, 0.95, 1.0]
        kernels = [pair(math.acos(c), dtype="float64") for c in cosines]
        values = [number(k, s, distance=distance, softening=0.5) for k in kernels]
        assert values[0] == pytest.approx(oracle.potential(cosines[0], s, distance))
        steps = np.diff(values) / np.diff(cosines)
        slope = oracle.potential_slope(cosines[0], s, distance)
        np.testing.assert_allclose(steps, slope, rtol=1e-6)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("softening", ["auto", 0.1, 1.0, 1.4])
    def test_convex_and_repulsive(self, softening, distance, half_space, float64):
        cosines = np.linspace(-0.999, 1, 201)
        potential = potentials.Potential(
            2.0,
            distance == "angular",
            half_space,
            potentials.softening_floor(softening, 4, 2, "float64"),
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

    def test_the_slope_is_the_derivative_of_the_value(self, float64):
        for s in POWERS:
            for angular in (False, True):
                for half_space in SPACES:
                    potential = potentials.Potential(float(s), angular, half_space, 0.3)
                    # The slope of the angle is held beyond.
                    cosines = np.linspace(-0.95, 0.95, 50)
                    ends = [
                        keras.ops.convert_to_numpy(potential(keras.ops.convert_to_tensor(c))[0])
                        for c in (cosines - 1e-6, cosines + 1e-6)
                    ]
                    slope = potential(keras.ops.convert_to_tensor(cosines))[1]
                    expected = (ends[1] - ends[0]) / 2e-6
                    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)

    def test_angular_slope_at_opposite_neurons_is_held(self, float64):
        potential = potentials.Potential(1.0, True, False, 0.1)
        at, beyond = (
            float(potential(keras.ops.convert_to_tensor(np.array(c)))[1]) for c in (-1 + 1e-4, -1.0)
        )
        assert beyond == pytest.approx(at)
        assert at == pytest.approx(oracle.potential_slope(-1 + 1e-4, 1, "angular"), rel=1e-3)
        opposite = np.array([[1.0, -1.0], [0.0, 0.0]])
        assert number(opposite, 1, distance="angular") == pytest.approx(1 / math.pi)

    def test_zero_asks_for_the_singular_potential(self, float64):
        kernel = pair(1e-3, dtype="float64")
        assert number(kernel, 2, softening=0) == pytest.approx(1e6, rel=1e-6)
        assert number(kernel, 2) < 50


class TestCurvature:
    """The slope of the slope, which learned projections need."""

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("s", POWERS)
    def test_it_is_the_derivative_of_the_slope(self, s, distance, float64):
        potential = potentials.Potential(float(s), distance == "angular", False, 0.1)
        cosines = np.array([-0.99, -0.5, 0.0, 0.3, 0.94, 0.96, 1.0])
        step = 1e-6

        def slope(c):
            return keras.ops.convert_to_numpy(potential(keras.ops.convert_to_tensor(c))[1])

        expected = (slope(cosines + step) - slope(cosines - step)) / (2 * step)
        tensor = keras.ops.convert_to_tensor(cosines)
        got = keras.ops.convert_to_numpy(potential.curvature(tensor, potential(tensor)[1]))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("distance", DISTANCES)
    def test_it_is_finite_everywhere(self, distance):
        potential = potentials.Potential(2.0, distance == "angular", False, 1e-6)
        cosines = keras.ops.convert_to_tensor(np.linspace(-1, 1, 1001, dtype="float32"))
        curvature = potential.curvature(cosines, potential(cosines)[1])
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(curvature)))
