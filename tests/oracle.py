"""The energy by its definition in float64: all points, all ordered pairs, no optimization."""

import numpy as np
from scipy.special import gamma


def auto_epsilon(points: int, dimension: int) -> float:
    """The squared distance below which pairs are softened, from the areas of sphere and ball."""
    if dimension == 1:
        return 0.1
    sphere = 2 * np.pi ** (dimension / 2) / gamma(dimension / 2)
    ball = np.pi ** ((dimension - 1) / 2) / gamma((dimension + 1) / 2)
    return min(0.1, (sphere / (points * ball)) ** (2 / (dimension - 1)))


def potential(cosine: float, s: float, distance: str) -> float:
    """Energy of one pair of points."""
    length = np.sqrt(2 - 2 * cosine) if distance == "euclidean" else np.arccos(cosine)
    return -np.log(length) if s == 0 else length**-s


def potential_slope(cosine: float, s: float, distance: str) -> float:
    """The derivative of the potential in the cosine, by central differences."""
    step = 1e-6
    after, before = (potential(cosine + h, s, distance) for h in (step, -step))
    return (after - before) / (2 * step)


def pair_energy(p: np.ndarray, q: np.ndarray, s: float, distance: str, epsilon: float) -> float:
    """Energy of two points, continued along its tangent at squared distances below epsilon."""
    gap = np.linalg.norm(p - q)
    if gap**2 < epsilon:
        edge, step = 1 - epsilon / 2, 1e-5 * epsilon
        after, before = (potential(edge + h, s, distance) for h in (step, -step))
        return potential(edge, s, distance) + (after - before) / (2 * step) * (p @ q - edge)
    # Accurate for opposite points too, unlike the arccosine of a rounded cosine.
    length = gap if distance == "euclidean" else 2 * np.arctan2(gap, np.linalg.norm(p + q))
    return -np.log(length) if s == 0 else length**-s


def energy(
    matrix: np.ndarray,
    s: float = 2.0,
    distance: str = "euclidean",
    half_space: bool = False,
    epsilon: float = 0.0,
) -> float:
    """Mean over the ordered pairs of neurons (columns), in half space with mirror images."""
    points = np.asarray(matrix, "float64")
    points = points / np.linalg.norm(points, axis=0)
    if half_space:
        points = np.concatenate([points, -points], axis=1)
    count = points.shape[1]
    pairs = [
        pair_energy(points[:, i], points[:, j], s, distance, epsilon)
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return float(np.mean(pairs)) if pairs else 0.0


def gradient(matrix: np.ndarray, step: float = 1e-5, **options) -> np.ndarray:
    """Central differences of the energy in every entry."""
    matrix = np.asarray(matrix, "float64")
    result = np.zeros_like(matrix)
    for index in np.ndindex(matrix.shape):
        shift = np.zeros_like(matrix)
        shift[index] = step
        after, before = (energy(matrix + sign * shift, **options) for sign in (1, -1))
        result[index] = (after - before) / (2 * step)
    return result


def central_differences(function, array: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Central differences of any function of an array, in every entry."""
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        shift = np.zeros_like(array)
        shift[index] = step
        result[index] = (function(array + shift) - function(array - shift)) / (2 * step)
    return result


def cosine_distance(projection: np.ndarray, matrix: np.ndarray) -> float:
    """The Frobenius norm of the change that a projection makes to the cosines of neurons."""

    def cosines(points):
        points = points / np.linalg.norm(points, axis=0)
        return points.T @ points

    return float(np.linalg.norm(cosines(projection @ matrix) - cosines(matrix)))


def log_mean_exp(exponents: np.ndarray) -> float:
    """The logarithm of the mean of exponentials, which may be tiny."""
    largest = np.max(exponents)
    return float(largest + np.log(np.mean(np.exp(exponents - largest))))


def gaussian_energy(matrix: np.ndarray, t: float, half_space: bool, groups: int = 1) -> float:
    """The logarithm of the mean of `exp(-t |u - v|^2)` over all ordered pairs of all groups."""
    exponents = []
    for part in np.split(np.asarray(matrix, "float64"), groups, axis=1):
        points = part / np.linalg.norm(part, axis=0)
        if half_space:
            points = np.concatenate([points, -points], axis=1)
        square = np.sum((points[:, :, None] - points[:, None, :]) ** 2, axis=0)
        exponents.append(-t * square[~np.eye(points.shape[1], dtype=bool)])
    exponents = np.concatenate(exponents)
    return log_mean_exp(exponents) if exponents.size else 0.0
