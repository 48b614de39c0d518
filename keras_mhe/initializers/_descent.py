"""Lowers the energy of directions by gradient steps, with NumPy in float64."""

import numpy as np

from keras_mhe.energies._riesz import RieszPotential

# Entries of a panel of cosines, which fits into the caches of a processor.
_PANEL = 2**18


def _values_and_slopes(
    cosine: np.ndarray, potential: RieszPotential
) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean potential of points and its derivative in the cosine, elementwise."""
    gap = 1.0 - cosine
    clipped = np.maximum(gap, potential.epsilon / 2)
    if potential.s == 0:
        values, slopes = -0.5 * np.log(2.0 * clipped), 0.5 / clipped
    else:
        values = (2.0 * clipped) ** (-potential.s / 2)
        slopes = potential.s / 2 * values / clipped
    return values + slopes * (clipped - gap), slopes


def _energy_and_gradient(unit: np.ndarray, potential: RieszPotential) -> tuple[float, np.ndarray]:
    """Half the sum of the energies of all ordered pairs, and its gradient along the sphere."""
    n = unit.shape[1]
    width = max(16, _PANEL // n)
    total, gradient = 0.0, np.empty_like(unit)
    for start in range(0, n, width):
        columns = slice(start, min(start + width, n))
        cosine = unit.T @ unit[:, columns]
        values, slopes = _values_and_slopes(cosine, potential)
        if potential.half_space:
            mirrored_values, mirrored_slopes = _values_and_slopes(-cosine, potential)
            values += mirrored_values
            slopes -= mirrored_slopes
        neurons = np.arange(columns.start, columns.stop)
        values[neurons, neurons - start] = slopes[neurons, neurons - start] = 0.0
        total += float(np.sum(values)) / 2
        gradient[:, columns] = unit @ slopes
    return total, gradient - unit * np.sum(unit * gradient, axis=0)


def normalized(points: np.ndarray) -> np.ndarray:
    """Scales columns to length one."""
    return points / np.linalg.norm(points, axis=0)


def tight_frame(unit: np.ndarray, rounds: int, half_space: bool) -> np.ndarray:
    """Moves directions to a set that is nearly a tight frame, and in full space balanced.

    In a tight frame, `sum u_i u_i^T = (n/d) I`. In a balanced set, `sum u_i = 0`. Together they
    minimize the energy up to second order in the cosines. Each round is a step of Newton and
    Schulz towards the nearest matrix with orthogonal rows, in time `d^2 n` and not `n^2 d`.
    """
    d, n = unit.shape
    for _ in range(rounds):
        if not half_space:
            unit = unit - np.mean(unit, axis=1, keepdims=True)
        moments = d / n * (unit @ unit.T)
        unit = normalized(1.5 * unit - 0.5 * (moments @ unit))
    return unit


def descend(unit: np.ndarray, potential: RieszPotential, steps: int) -> np.ndarray:
    """Returns directions after at most `steps` gradient steps, none of which raises the energy.

    Source: Barzilai and Borwein (1988), "Two-point step size gradient methods", IMA Journal of
    Numerical Analysis, for the length of steps.
    """
    if steps == 0:
        return unit
    energy, gradient = _energy_and_gradient(unit, potential)
    # The first step moves no neuron by more than 0.1.
    rate = 0.1 / (np.max(np.linalg.norm(gradient, axis=0)) or 1.0)
    for _ in range(steps):
        # A decrease below rounding.
        if rate * np.sum(np.square(gradient)) <= 1e-14 * unit.shape[1] ** 2:
            break
        moved = normalized(unit - rate * gradient)
        moved_energy, moved_gradient = _energy_and_gradient(moved, potential)
        if moved_energy >= energy:
            rate /= 4
            continue
        step, change = moved - unit, moved_gradient - gradient
        curvature = np.sum(step * change)
        rate = np.sum(step * step) / curvature if curvature > 0 else 2 * rate
        unit, energy, gradient = moved, moved_energy, moved_gradient
    return unit
