"""The distribution of angles between random neurons."""

import numpy as np
from numpy.typing import ArrayLike

from keras_mhe.reference._energies import check_counts
from keras_mhe.reference._integrals import (
    LARGEST_X,
    angle_at,
    log_density,
    significant_range,
)

# Angles in the sums that approximate integrals over the angle.
_ANGLES = 20001


def _integrals(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The integrals of a function over the intervals between points, by the trapezoidal rule."""
    return (values[1:] + values[:-1]) / 2 * np.diff(at)


def _pair_angles(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles between two random neurons in radians, their density, and its integral from 0."""
    x = np.linspace(*significant_range(lambda x: log_density(x, d), -LARGEST_X, LARGEST_X), _ANGLES)
    # The density of the angle is that of x divided by sin(angle).
    logarithm = log_density(x, d) - log_density(x, 2)
    density = np.exp(logarithm - np.max(logarithm))
    # Two coordinates have the same density at every angle, and more have none at the ends.
    at_ends = float(d == 2)
    angles = np.concatenate([[0.0], angle_at(x), [np.pi]])
    density = np.concatenate([[at_ends], density, [at_ends]])
    steps = _integrals(density, angles)
    total = np.sum(steps)
    return angles, density / total, np.concatenate([[0.0], np.cumsum(steps)]) / total


def nearest_angle_density(
    angles: ArrayLike, n: int, d: int, *, half_space: bool = False
) -> np.ndarray:
    """The density of the angle from a neuron to its nearest neighbor, for uniform neurons.

    `(n-1) p (1-F)^(n-2)`, where p is the density of the angle between two neurons, proportional to
    `sin^(d-2)`, and F is its integral from 0. In half space, `2p` and `2F` replace p and F, and
    angles end at 90 degrees.

    Args:
        angles: array of angles in degrees, of any shape.
        n: number of neurons, at least 2.
        d: number of coordinates of a neuron, at least 2.
        half_space: whether to include the mirror images of the neurons.

    Returns:
        A float64 array of the shape of `angles`, per degree.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: the density of the smallest of `n - 1` independent angles.

    Examples:
        >>> from keras_mhe.reference import nearest_angle_density
        >>> float(nearest_angle_density(90.0, 2, 3).round(4))  # sin(90°) / 2 per radian
        0.0087
    """
    n, d = check_counts(n, d, least=2)
    grid, density, integral = _pair_angles(d)
    sides = 2 if half_space else 1
    radians = np.radians(np.asarray(angles, "float64"))
    share = np.clip(sides * np.interp(radians, grid, integral), 0.0, 1.0)
    local = sides * np.interp(radians, grid, density, left=0.0, right=0.0)
    local = np.where(radians * sides > np.pi, 0.0, local)
    return np.radians((n - 1) * local * (1 - share) ** (n - 2))


def uniform_nearest_angle(n: int, d: int, *, half_space: bool = False) -> float:
    """The expected angle from a neuron to its nearest neighbor, for uniform neurons.

    The integral of `(1-F)^(n-1)` over the angle, where F is the integral of the density of the
    angle between two neurons, as in `nearest_angle_density`. In half space, `2F` replaces F, and
    angles end at 90 degrees.

    Args:
        n: number of neurons, at least 2.
        d: number of coordinates of a neuron, at least 2.
        half_space: whether to include the mirror images of the neurons.

    Returns:
        A float, in degrees, accurate to at least five digits.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: the mean of the smallest of `n - 1` independent angles.

    Examples:
        >>> from keras_mhe.reference import uniform_nearest_angle
        >>> round(uniform_nearest_angle(2, 3), 6)
        90.0
    """
    n, d = check_counts(n, d, least=2)
    grid, _, integral = _pair_angles(d)
    share = np.clip((2 if half_space else 1) * integral, 0.0, 1.0)
    return float(np.degrees(np.sum(_integrals((1 - share) ** (n - 1), grid))))
