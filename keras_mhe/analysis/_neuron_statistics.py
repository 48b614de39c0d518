"""Statistics of the neurons of one kernel: energy, angles, and faulty neurons."""

from typing import NamedTuple

import numpy as np

from keras_mhe.energies._potential import Potential

# The side of a panel of cosines. A panel fits into the caches of a processor.
_PANEL = 512
# Rows of a panel whose energies are computed at a time. Each operation on larger arrays gets new
# pages of memory, which takes several times as long as the operation.
_ROWS = 32
# Products of at most this many operations use one thread; slices of fewer rows are inefficient.
_SINGLE_THREAD, _MIN_DEPTH = 2**18, 16
# A neuron at a smaller angle to an earlier one, in degrees, counts as its duplicate.
DUPLICATE_ANGLE = 0.1


class NeuronStatistics(NamedTuple):
    """Statistics of a set of neurons.

    Attributes:
        energy: the mean over groups; NaN if a neuron is not finite.
        nearest_angles: for each neuron the angle to the nearest other one in degrees; in half
            space, to the nearest line. NaN for neurons without a direction or without a pair.
        zero: number of neurons of norm zero.
        duplicate: number of neurons within `DUPLICATE_ANGLE` of an earlier one.
        non_finite: number of neurons with an entry that is not finite.
    """

    energy: float
    nearest_angles: np.ndarray
    zero: int
    duplicate: int
    non_finite: int


def _unit_neurons(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit neurons (zeros for those without a direction), and masks of zero and non-finite ones."""
    non_finite = ~np.all(np.isfinite(matrix), axis=0)
    matrix = np.where(non_finite, 0.0, matrix)
    largest = np.max(np.abs(matrix), axis=0)
    zero = (largest == 0) & ~non_finite
    # With entries near 1, squares neither overflow nor underflow.
    matrix = matrix / np.where(largest == 0, 1.0, largest)
    norm = np.sqrt(np.sum(np.square(matrix), axis=0))
    return matrix / np.where(norm == 0, 1.0, norm), zero, non_finite


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left.T @ right`, computed in slices if it is small.

    OpenBLAS uses several threads for larger products. They wait for the next product in a busy
    loop for milliseconds and slow down the threads that train the model.
    """
    pairs, d = left.shape[1] * right.shape[1], left.shape[0]
    depth = _SINGLE_THREAD // pairs
    if d <= depth or depth < _MIN_DEPTH:
        return left.T @ right
    return sum(left[k : k + depth].T @ right[k : k + depth] for k in range(0, d, depth))


def _sum_of_energies(cosine: np.ndarray, pairs: np.ndarray | None, potential: Potential) -> float:
    """The sum of the energies of a panel of cosines, or of those where `pairs` is true."""
    total = 0.0
    for start in range(0, len(cosine), _ROWS):
        rows = slice(start, start + _ROWS)
        where = True if pairs is None else pairs[rows]
        total += float(np.sum(potential.values(cosine[rows]), where=where))
    return total


def _energy_and_largest_cosines(
    unit: np.ndarray, undirected: np.ndarray, potential: Potential
) -> tuple[float, np.ndarray]:
    """The sum of the energies of all pairs, and the largest cosines of each neuron.

    The cosines are two rows: with all other neurons, and with earlier ones only. The function
    visits the panels i <= j of the matrix of cosines and stores none of them.
    """
    n = unit.shape[1]
    total, largest = 0.0, np.full((2, n), -np.inf)
    for start in range(0, n, _PANEL):
        right = slice(start, min(start + _PANEL, n))
        for other in range(0, start + 1, _PANEL):
            left = slice(other, other + _PANEL)
            cosine = _cosines(unit[:, left], unit[:, right])
            # Each pair counts once: in a panel on the diagonal, only the part above it.
            pairs = np.triu(np.ones(cosine.shape, bool), 1) if other == start else None
            total += _sum_of_energies(cosine, pairs, potential)
            where = True if pairs is None else pairs
            closeness = np.abs(cosine, out=cosine) if potential.half_space else cosine
            closeness[undirected[left]] = -np.inf
            closeness[:, undirected[right]] = -np.inf
            later, earlier = (
                np.max(closeness, axis, where=where, initial=-np.inf) for axis in (1, 0)
            )
            np.maximum(largest[0, left], later, out=largest[0, left])
            np.maximum(largest[:, right], earlier, out=largest[:, right])
    return total, largest


def neuron_statistics(matrix: np.ndarray, potential: Potential) -> NeuronStatistics:
    """Computes the statistics in float64 and in memory proportional to the matrix.

    Args:
        matrix: array of shape `(groups, d, N)`, one neuron in each column.
        potential: energy of a pair.
    """
    groups, _, n = matrix.shape
    zero_count = non_finite_count = duplicate_count = 0
    means, nearest_angles = np.zeros(groups), np.full((groups, n), np.nan)
    duplicate_cosine = np.cos(np.radians(DUPLICATE_ANGLE))
    for g in range(groups):
        unit, zero, non_finite = _unit_neurons(matrix[g])
        total, (largest, earlier) = _energy_and_largest_cosines(unit, zero | non_finite, potential)
        means[g] = np.nan if non_finite.any() else total / max(n * (n - 1) / 2, 1)
        paired = np.isfinite(largest)
        nearest_angles[g, paired] = np.degrees(np.arccos(np.minimum(largest[paired], 1.0)))
        zero_count += int(np.sum(zero))
        non_finite_count += int(np.sum(non_finite))
        duplicate_count += int(np.sum(earlier > duplicate_cosine))
    return NeuronStatistics(
        energy=potential.energy_from_mean(float(np.mean(means)), n),
        nearest_angles=nearest_angles.ravel(),
        zero=zero_count,
        duplicate=duplicate_count,
        non_finite=non_finite_count,
    )


def neuron_turns(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The angles between the directions of neurons before and after a change, in degrees.

    `2 atan2(|u - v|, |u + v|)`, which is accurate for small and for nearly opposite turns,
    unlike the arccosine of a rounded cosine. NaN for a neuron without a direction before or after.

    Args:
        before: array of shape `(groups, d, N)`, one neuron in each column.
        after: array of the same shape.

    Returns:
        An array of shape `(groups * N,)`, from 0 to 180.
    """
    groups, _, n = before.shape
    turns = np.empty((groups, n))
    for g in range(groups):
        (u, *faults), (v, *later_faults) = map(_unit_neurons, (before[g], after[g]))
        gap, total = np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0)
        angles = np.degrees(2 * np.arctan2(gap, total))
        turns[g] = np.where(np.any([*faults, *later_faults], axis=0), np.nan, angles)
    return turns.ravel()
