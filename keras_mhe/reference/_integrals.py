"""Means over the angle between two random neurons, by integrals in logarithms.

The variable is `x = log(u / (1 - u))`, where `u = sin^2(angle / 2)`. In x, the density of the angle
times the energy of a pair has one peak and decays exponentially on both sides, for any power and
any number of coordinates.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from keras_mhe.energies._riesz import RieszPotential

# Integrals end here. For two coordinates, the density has decayed to 1e-32 of its largest value.
LARGEST_X = 150.0
# The integrand is ignored where it is less than exp(-50) = 2e-22 of its largest value.
_NEGLIGIBLE = -50.0
# Points of a search for the range of the integrand.
_POINTS = 201
# Panels and Gauss-Legendre nodes in each of them. These numbers give all digits.
_PANELS, _NODES = 64, 20

_nodes_and_weights = functools.cache(np.polynomial.legendre.leggauss)


def share_of_sphere(x: np.ndarray) -> np.ndarray:
    """`u = sin^2(angle / 2)`, without loss of digits near zero."""
    return np.exp(-np.logaddexp(0.0, -x))


def angle_at(x: np.ndarray) -> np.ndarray:
    """The angle in radians."""
    return 2.0 * np.arctan(np.exp(x / 2))


def log_density(x: np.ndarray, d: int) -> np.ndarray:
    """The logarithm of `sin(angle)^(d-1)`, the density of x up to a constant factor.

    The density of the angle is proportional to `sin^(d-2)`, and `d angle = sin(angle) / 2 dx`.
    """
    # sin(angle) = 1 / cosh(x/2). The sum 1 + 2 sinh^2 is exact to all digits near a right angle.
    return (1.0 - d) * np.log1p(2.0 * np.sinh(x / 4) ** 2)


def significant_range(
    log_integrand: Callable[[np.ndarray], np.ndarray], start: float, end: float
) -> tuple[float, float]:
    """The part of an interval where an integrand with one peak is not negligible."""
    while True:
        x = np.linspace(start, end, _POINTS)
        values = log_integrand(x)
        [kept] = np.nonzero(values >= np.max(values) + _NEGLIGIBLE)
        first, last = max(kept[0] - 1, 0), min(kept[-1] + 1, _POINTS - 1)
        start, end = float(x[first]), float(x[last])
        if last - first > _POINTS // 2:
            return start, end


def _log_integral(
    log_integrand: Callable[[np.ndarray], np.ndarray], start: float, end: float
) -> float:
    """The logarithm of an integral."""
    edges = np.linspace(*significant_range(log_integrand, start, end), _PANELS + 1)
    nodes, weights = _nodes_and_weights(_NODES)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    values = log_integrand((edges[:-1, None] + half) + half * nodes)
    largest = np.max(values)
    return float(largest + np.log(np.sum(half * weights * np.exp(values - largest))))


@functools.lru_cache(maxsize=1024)
def softened_mean(d: int, potential: RieszPotential) -> float:
    """The mean energy of a pair of random neurons with at least two coordinates, in full space.

    Raises:
        ValueError: if the energy of equal neurons exceeds the largest floating-point number.
    """
    s, angular = potential.s, potential.angular
    potential.values(np.array([1.0]))  # raises
    edge_share = potential.epsilon / 4
    edge = math.log(edge_share) - math.log1p(-edge_share)
    edge_angle = 2 * math.asin(math.sqrt(edge_share))
    # Minus the derivative of the logarithm of the distance with respect to u, at the edge.
    rate = 2 / (edge_angle * math.sin(edge_angle)) if angular else 1 / (2 * edge_share)
    # The logarithmic energy is negative at large distances. A constant makes it positive.
    constant = 2.0 if s == 0 else 0.0

    def log_distance(x: np.ndarray) -> np.ndarray:
        if angular:
            return np.log(angle_at(x))
        return math.log(2) - np.logaddexp(0.0, -x) / 2

    def log_energy(x: np.ndarray) -> np.ndarray:
        if s == 0:
            return np.log(constant - log_distance(x))
        return -s * log_distance(x)

    def log_softened(x: np.ndarray) -> np.ndarray:
        closer = rate * (edge_share - share_of_sphere(x))
        at_edge = float(log_energy(np.array(edge)))
        if s == 0:
            return np.log(math.exp(at_edge) + closer)
        return at_edge + np.log1p(s * closer)

    def density(x: np.ndarray) -> np.ndarray:
        return log_density(x, d)

    total = _log_integral(density, -LARGEST_X, LARGEST_X)
    near = _log_integral(lambda x: density(x) + log_softened(x), -LARGEST_X, edge)
    far = _log_integral(lambda x: density(x) + log_energy(x), edge, LARGEST_X)
    return math.exp(near - total) + math.exp(far - total) - constant


@functools.lru_cache(maxsize=1024)
def gaussian_mean(d: int, t: float) -> float:
    """The mean of `exp(-t |u - v|^2)` for random neurons with at least two coordinates."""

    def density(x: np.ndarray) -> np.ndarray:
        return log_density(x, d)

    def log_integrand(x: np.ndarray) -> np.ndarray:
        return density(x) - 4.0 * t * share_of_sphere(x)

    total = _log_integral(density, -LARGEST_X, LARGEST_X)
    return math.exp(_log_integral(log_integrand, -LARGEST_X, LARGEST_X) - total)
