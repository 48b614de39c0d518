"""Levenshtein's quadrature: the cosines between neurons that are spread as well as possible."""

import functools
import math

import numpy as np

# Bisection halves an interval of length 2 this often, down to the last bit.
_HALVINGS = 60


def _jacobi(a: float, b: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the recurrence `p_{k+1} = (t - A_k) p_k - B_k p_{k-1}`, for k < count.

    The polynomials are orthogonal on [-1, 1] with the weight `(1 - t)^a (1 + t)^b`. `A_0` is the
    mean of t, and `A_0^2 + B_1` is the mean of `t^2`.
    """
    k = np.arange(1.0, count)
    double = 2 * k + a + b
    diagonal = np.r_[(b - a) / (a + b + 2), (b * b - a * a) / (double * (double + 2))]
    square = 4 * k * (k + a) * (k + b)
    # In the first coefficient, the factor a + b + 1 cancels. It may be zero.
    ratio = np.ones_like(k)
    ratio[1:] = ((k + a + b) / (double - 1))[1:]
    return diagonal, np.r_[0.0, square * ratio / (double * double * (double + 1))]


def _strength(n: int, d: int, half_space: bool) -> int:
    """The largest degree for which n neurons can be a design, by Delsarte's bound."""

    def least(degree: int) -> int:
        if half_space:
            return math.comb(d + degree - 1, degree)
        half, odd = divmod(degree, 2)
        if odd:
            return 2 * math.comb(d + half - 1, half)
        return math.comb(d + half - 1, half) + (math.comb(d + half - 2, half - 1) if half else 0)

    degree = 0
    while least(degree + 1) <= n:
        degree += 1
    return degree


def _last_diagonal(diagonal: np.ndarray, square: np.ndarray, target: float) -> float:
    """The last entry of a Jacobi matrix J for which `(I - J)^(-1)` starts with `target`."""

    def end(x: float) -> float:
        """The last entry for which x is an eigenvalue."""
        minor = math.inf
        for a, b in zip(diagonal[:-1], square[:-1], strict=True):
            minor = x - a - b / minor
        return x - square[-1] / minor

    def corner(last: float) -> float:
        pivot = 1.0 - last
        for a, b in zip(diagonal[-2::-1], square[:0:-1], strict=True):
            pivot = 1.0 - a - b / pivot
        return 1.0 / pivot

    # All eigenvalues are between -1 and 1.
    low, high = end(-1.0), end(1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if corner(middle) < target else (low, middle)
    return (low + high) / 2


@functools.lru_cache(maxsize=1024)
def pair_distribution(n: int, d: int, half_space: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and their weights, which replace the pairs of n neurons that are spread well.

    Together with weight `1/n` at cosine 1, the weights `(1 - 1/n) w_i` at cosines `c_i` integrate
    polynomials over the sphere, up to the highest degree that n neurons allow. (In half space,
    polynomials of `t = 2 c^2 - 1`.) For a potential whose derivatives are all nonnegative,
    `sum w_i f(c_i)` is a lower bound of the energy. Simplices, orthonormal neurons,
    cross-polytopes, the icosahedron and all other sharp designs attain it.

    Args:
        n: number of neurons, at least 2.
        d: number of coordinates of a neuron.
        half_space: whether mirror images count as neurons.

    Source: Boyvalenkov, Dragnev, Hardin, Saff and Stoyanova (2016), "Universal lower bounds for
    potential energy of spherical codes", Constructive Approximation. Levenshtein (1998),
    "Universal bounds for codes and designs", gives the quadrature for lines.
    """
    if d == 1:
        # Half of the neurons point in each of the two directions.
        opposite = 0.0 if half_space else 2 * (n // 2) * (n - n // 2) / (n * (n - 1))
        return np.array([-1.0, 1.0]), np.array([opposite, 1 - opposite])
    if d == 2:
        # Regular polygons.
        angles = np.arange(1, n) * (np.pi if half_space else 2 * np.pi) / n
        return np.cos(angles), np.full(n - 1, 1 / (n - 1))
    degree = _strength(n, d, half_space)
    count, even = (degree + 1) // 2, degree % 2 == 0
    if count == 0:
        return np.zeros(1), np.ones(1)
    a = (d - 3) / 2
    b = -0.5 if half_space else a
    (mean, _), (_, variance) = _jacobi(a, b, 2)
    # For an even degree, t = -1 is a node too. The other nodes and t = 1 are those of a Gauss
    # quadrature for the density times 1 - t, or 1 - t^2, with one free entry in its Jacobi matrix.
    diagonal, square = _jacobi(a + 1, b + even, count)
    mass = 1 - mean * mean - variance if even else 1 - mean
    at_one = 1 + mean - 2 / n if even else 1 - 1 / n
    diagonal[-1] = _last_diagonal(diagonal, square, at_one / mass)
    off_diagonal = np.diag(np.sqrt(square[1:]), 1)
    t, vectors = np.linalg.eigh(np.diag(diagonal) + off_diagonal + off_diagonal.T)
    weights = mass * vectors[0] ** 2
    if even:
        at_minus_one = (1 - mean) / 2 - np.sum(weights / (1 + t)) / 2
        t, weights = np.r_[-1.0, t], np.r_[at_minus_one, weights / (1 - t * t)]
    else:
        weights = weights / (1 - t)
    cosine = np.sqrt(np.maximum((1 + t) / 2, 0.0)) if half_space else t
    return cosine, np.maximum(weights, 0.0) / np.sum(weights)
