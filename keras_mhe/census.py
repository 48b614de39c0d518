"""What there is to know of the neurons of one kernel: energy, neighbours, and what is wrong."""

from typing import NamedTuple

import numpy as np

from keras_mhe.potentials import Potential

# So many neurons meet as many others at a time: that many cosines stay in a processor's caches.
_PANEL = 512
# Up to so many operations a product takes one thread; slices of fewer rows would not be worth it.
_SERIAL, _DEPTH = 2**18, 16
# Nearer than this, in degrees, a neuron repeats another.
TWIN = 0.1


class Census(NamedTuple):
    """What there is to know of a set of neurons.

    Attributes:
        energy: the mean over groups; NaN where a neuron is not finite.
        nearest: for each neuron the angle to its nearest in degrees, in half space to the nearest
            line; NaN for neurons that have no direction or no other beside them.
        zero: how many neurons have norm zero.
        duplicate: how many repeat one before them, to a tenth of a degree.
        non_finite: how many have an entry that is not a finite number.
    """

    energy: float
    nearest: np.ndarray
    zero: int
    duplicate: int
    non_finite: int


def _unit(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neurons on the sphere, zeros for those without direction; which are zero and not finite."""
    broken = ~np.all(np.isfinite(matrix), axis=0)
    matrix = np.where(broken, 0.0, matrix)
    largest = np.max(np.abs(matrix), axis=0)
    zero = (largest == 0) & ~broken
    # Entries near 1, so that their squares neither overflow nor vanish.
    matrix = matrix / np.where(largest == 0, 1.0, largest)
    norm = np.sqrt(np.sum(np.square(matrix), axis=0))
    return matrix / np.where(norm == 0, 1.0, norm), zero, broken


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left.T @ right`, small ones slice by slice.

    OpenBLAS has several threads for a product of more than so many operations, and they go on
    waiting for another one for milliseconds, in the way of those that train.
    """
    pairs, d = left.shape[1] * right.shape[1], left.shape[0]
    depth = _SERIAL // pairs
    if d <= depth or depth < _DEPTH:
        return left.T @ right
    return sum(left[k : k + depth].T @ right[k : k + depth] for k in range(0, d, depth))


def _pairs(unit: np.ndarray, aimless: np.ndarray, potential: Potential) -> tuple[float, np.ndarray]:
    """The energies of all pairs added up, and two rows: the largest cosines, to all and to earlier.

    Walks the panels i <= j of the matrix of cosines, and keeps none of them.
    """
    n = unit.shape[1]
    total, closest = 0.0, np.full((2, n), -np.inf)
    for start in range(0, n, _PANEL):
        right = slice(start, min(start + _PANEL, n))
        for other in range(0, start + 1, _PANEL):
            left = slice(other, other + _PANEL)
            cosine = _cosines(unit[:, left], unit[:, right])
            values = potential.values(cosine)
            near = np.abs(cosine, out=cosine) if potential.half_space else cosine
            near[aimless[left]] = -np.inf
            near[:, aimless[right]] = -np.inf
            # Each pair once: on the diagonal, above it.
            pairs = np.triu(np.ones(near.shape, bool), 1) if other == start else True
            total += float(np.sum(values, where=pairs))
            later, earlier = (np.max(near, axis, where=pairs, initial=-np.inf) for axis in (1, 0))
            np.maximum(closest[0, left], later, out=closest[0, left])
            np.maximum(closest[:, right], earlier, out=closest[:, right])
    return total, closest


def census(matrix: np.ndarray, potential: Potential) -> Census:
    """Counts and measures neurons, in float64 and in memory proportional to the matrix.

    Args:
        matrix: array of shape `(groups, d, N)`, a neuron a column.
        potential: energy of a pair.
    """
    groups, _, n = matrix.shape
    share, constant = potential.shares(n)
    zero = non_finite = duplicate = 0
    energies, nearest = np.zeros(groups), np.full((groups, n), np.nan)
    for g in range(groups):
        unit, empty, broken = _unit(matrix[g])
        total, (closest, earlier) = _pairs(unit, empty | broken, potential)
        mean = total / max(n * (n - 1) / 2, 1)
        energies[g] = np.nan if broken.any() else share * mean + constant
        met = np.isfinite(closest)
        nearest[g, met] = np.degrees(np.arccos(np.minimum(closest[met], 1.0)))
        zero += int(np.sum(empty))
        non_finite += int(np.sum(broken))
        duplicate += int(np.sum(earlier > np.cos(np.radians(TWIN))))
    return Census(float(np.mean(energies)), nearest.ravel(), zero, duplicate, non_finite)
