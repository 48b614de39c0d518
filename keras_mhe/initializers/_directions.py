"""Directions of low energy for any numbers of neurons and coordinates."""

from typing import Any

import numpy as np

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._riesz import RieszPotential
from keras_mhe.initializers._closed_forms import closed_form
from keras_mhe.initializers._descent import descend, normalized, tight_frame

# All gradient steps together take about this many multiplications, or a few seconds. The potential
# of a pair takes the time of that many coordinates.
_STEP_OPERATIONS, _COORDINATES_PER_PAIR = 5 * 10**9, 64
_MOST_STEPS = 100
# The same for rounds towards a tight frame. More than six hardly change the energy.
_ROUND_OPERATIONS = 2 * 10**10
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 6


def _rotation(d: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal columns, of shape `(d, rank)`, uniform over all such matrices."""
    matrix, triangle = np.linalg.qr(rng.standard_normal((d, rank)))
    return matrix * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def default_steps(n: int, d: int) -> int:
    """The number of gradient steps that take a few seconds, at most 100."""
    return min(_MOST_STEPS, _STEP_OPERATIONS // (n * n * (d + _COORDINATES_PER_PAIR)))


def _optimized(
    n: int, d: int, potential: RieszPotential, steps: int, rng: np.random.Generator
) -> np.ndarray:
    # Raises if `s` is so large that the energy overflows.
    potential.values(np.ones(1))
    rounds = min(max(_ROUND_OPERATIONS // (d * d * n), _FEWEST_ROUNDS), _MOST_ROUNDS)
    start = normalized(rng.standard_normal((d, n)))
    return descend(tight_frame(start, rounds, potential.half_space), potential, steps)


def low_energy_directions(
    n: int, d: int, spec: PotentialSpec, steps: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Unit vectors of low energy in random order and rotation, a float64 array `(d, n)`.

    Args:
        n: number of neurons.
        d: number of coordinates.
        spec: the potential, Euclidean.
        steps: number of gradient steps where no closed form is known; None means `default_steps`.
        rng: the source of random numbers.
    """
    points = closed_form(n, d, spec.s, spec.half_space)
    if points is None:
        potential: Any = spec.potential(n, d, "float64")
        unit = _optimized(n, d, potential, default_steps(n, d) if steps is None else steps, rng)
    else:
        unit = _rotation(d, len(points), rng) @ points
    unit = unit[:, rng.permutation(n)]
    # In half space, all signs have the same energy. Those of a polygon would fill half a circle.
    return unit * rng.choice((-1.0, 1.0), n) if spec.half_space else unit
