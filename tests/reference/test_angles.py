"""The distribution of the nearest angle, compared with random neurons."""

import math

import numpy as np
import pytest
from helpers import normals
from scipy.integrate import trapezoid

from keras_mhe.reference import nearest_angle_density, uniform_nearest_angle

pytestmark = pytest.mark.once


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize(("n", "d"), [(2, 2), (10, 2), (50, 3), (400, 10), (512, 2000)])
def test_nearest_angle_density_matches_random_neurons(n, d, half_space):
    end = 90 if half_space else 180
    grid = np.linspace(0, end, 40001)
    density = nearest_angle_density(grid, n, d, half_space=half_space)
    assert trapezoid(density, grid) == pytest.approx(1, abs=2e-3)
    expected = trapezoid(density * grid, grid)
    means = []
    for seed in range(12):
        points = normals(d, n, seed=seed, dtype="float64")
        points /= np.linalg.norm(points, axis=0)
        cosines = points.T @ points
        cosines = np.abs(cosines) if half_space else cosines
        np.fill_diagonal(cosines, -1)
        means.append(np.degrees(np.arccos(np.clip(cosines.max(axis=0), -1, 1))).mean())
    error = max(np.std(means) / math.sqrt(12), 1e-2)
    assert abs(np.mean(means) - expected) < 5 * error
    assert uniform_nearest_angle(n, d, half_space=half_space) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("half_space", [False, True])
def test_mean_of_uniform_neurons_has_closed_forms(half_space):
    """On a circle, n - 1 uniform angles have their smallest at 180° / n; half in half space."""
    end = 90 if half_space else 180
    for n in (2, 10, 20_000):
        angle = uniform_nearest_angle(n, 2, half_space=half_space)
        assert angle == pytest.approx(end / n, rel=1e-5)
    # One other neuron: the mean angle, of the density sin on the sphere.
    expected = math.degrees(1) if half_space else 90
    assert uniform_nearest_angle(2, 3, half_space=half_space) == pytest.approx(expected, rel=1e-5)


def test_nearest_angle_density_needs_two_neurons_and_two_coordinates():
    with pytest.raises(ValueError, match="at least 2 neurons"):
        nearest_angle_density(10.0, 1, 3)
    with pytest.raises(ValueError, match="at least 2 coordinates"):
        nearest_angle_density(10.0, 3, 1)
    with pytest.raises(ValueError, match="at least 2 neurons"):
        uniform_nearest_angle(1, 3)


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize(("n", "d"), [(2, 10**8), (10**6, 3), (10**9, 3), (10**6, 2)])
def test_nearest_angle_density_is_resolved_wherever_it_is(n, d, half_space):
    """Its width may be a small fraction of a degree: many coordinates, or many neurons."""
    if n == 2:
        typical, width = 90.0, math.degrees(1 / math.sqrt(d))
    else:
        sphere = math.pi if d == 2 else 4.0
        typical = width = math.degrees((sphere / n / (1 + half_space)) ** (1 / (d - 1)))
    end = 90 if half_space else 180
    grid = np.linspace(max(0, typical - 30 * width), min(end, typical + 30 * width), 40001)
    density = nearest_angle_density(grid, n, d, half_space=half_space)
    assert trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
