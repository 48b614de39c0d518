"""Sets of directions of minimum energy that have a closed form."""

import numpy as np


def _simplex(n: int) -> np.ndarray:
    """The n vertices of a regular simplex, of shape `(n - 1, n)`: all cosines are `-1/(n-1)`."""
    # Helmert's matrix. Its rows are orthonormal and orthogonal to the vector of ones.
    k = np.arange(1, n)
    matrix = np.tril(np.ones((n - 1, n)))
    matrix[k - 1, k] = -k
    return matrix * np.sqrt(n / (n - 1) / (k * (k + 1)))[:, None]


def _orthogonal_simplexes(n: int, d: int, s: float) -> np.ndarray:
    """`n - d` simplexes in subspaces that are orthogonal to each other, for `d < n <= 2d`.

    For `n = 2d` they are the cross-polytope.
    """
    count = n - d
    # The energy that a simplex saves is convex in its size for s < 2, linear for s = 2, and
    # concave for s > 2. Therefore the sizes are as equal, or as different, as possible.
    equal = [(n + i) // count for i in range(count)]
    different = [2] * (count - 1) + [n - 2 * (count - 1)]
    points = np.zeros((d, n))
    row = column = 0
    for size in equal if s <= 2 else different:
        points[row : row + size - 1, column : column + size] = _simplex(size)
        row, column = row + size - 1, column + size
    return points


def closed_form(n: int, d: int, s: float, half_space: bool) -> np.ndarray | None:
    """Unit vectors of minimum energy, of shape `(rank, n)`, where `rank <= d`; None if unknown.

    Two directions are known in one dimension, and regular polygons in two. In half space, the set
    is orthonormal for `n <= d` and a simplex for `n = d + 1`. In full space, it is a simplex for
    `n <= d + 1`, and consists of orthogonal simplexes for `d + 1 < n <= 2d`. The latter is proved
    only in part; gradient steps from random sets found no lower energy.

    Source: Cohn and Kumar (2007), "Universally optimal distribution of points on spheres", Journal
    of the American Mathematical Society, for simplexes and the cross-polytope. Dragnev and Musin
    (2019), "Log-optimal (d+2)-configurations in d-dimensions", arXiv:1909.09909, for two orthogonal
    simplexes and s = 0.
    """
    if d == 1:
        return np.where(np.arange(n) % 2, -1.0, 1.0)[None]
    if d == 2:
        angles = np.arange(n) * (np.pi if half_space else 2 * np.pi) / n
        return np.stack([np.cos(angles), np.sin(angles)])
    if n == 1 or (half_space and n <= d):
        return np.eye(n)
    if n <= d + 1:
        return _simplex(n)
    if n <= 2 * d and not half_space:
        return _orthogonal_simplexes(n, d, s)
    return None
