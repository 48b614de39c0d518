"""A bound on the gradients of neurons, which keeps training steps short."""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import at_least
from keras_mhe._typing import Tensor
from keras_mhe.energies._quadrature import pair_distribution

# Found by experiments: the largest force times the number of neurons, relative to the square of
# the attainable angle; the largest force of all; and the smallest norm of a neuron in the bound.
_STIFFNESS, _LARGEST_FORCE, _SMALLEST_NORM = 4.0, 1.0, 0.5


@functools.lru_cache(maxsize=1024)
def attainable_angle(n: int, d: int, half_space: bool) -> float:
    """An upper bound of the smallest angle of n neurons, in radians."""
    if n == 1:
        return math.pi / 2 if half_space else math.pi
    cosines, _ = pair_distribution(n, d, half_space)
    return math.acos(float(np.clip(cosines.max(), -1.0, 1.0)))


def largest_force(n: int, d: int, half_space: bool, moving: int) -> float:
    """The bound on `|w_i| |gradient_i|`: `min(1, 4 angle^2 / moving)`.

    Args:
        n: number of neurons that repel each other.
        d: number of coordinates of a neuron.
        half_space: whether mirror images count as neurons.
        moving: number of neurons that have a gradient. The mean energy gives each of them a share.
    """
    return min(_LARGEST_FORCE, _STIFFNESS * attainable_angle(n, d, half_space) ** 2 / moving)


def _column_norms(matrix: Tensor) -> Tensor:
    # Entries near 1 have squares that neither overflow nor underflow.
    tiny = float(np.finfo(keras.backend.standardize_dtype(matrix.dtype)).tiny)
    top = at_least(ops.max(ops.abs(matrix), axis=-2, keepdims=True), tiny)
    return top * ops.sqrt(ops.sum(ops.square(matrix / top), axis=-2, keepdims=True))


def bounded_gradient(matrix: Tensor, gradient: Tensor, force: float) -> Tensor:
    """Shortens the gradients of neurons, and keeps their directions.

    `|gradient_i| <= force / max(|w_i|, 0.5)`. A gradient step of size `rate` then turns a neuron by
    at most `rate * force / |w_i|^2` radians, and moves a short neuron by at most
    `2 * rate * force`. A gradient that is short enough stays as it is, so minima do not move.

    Args:
        matrix: tensor of shape `(..., d, N)`.
        gradient: tensor of the same shape, the gradient of a loss.
        force: positive number, from `largest_force`.
    """
    longest = force / at_least(_column_norms(matrix), _SMALLEST_NORM)
    length = _column_norms(gradient)
    # Multiplying by a factor of 1 would change the last bits of gradients that are short enough.
    return ops.where(length > longest, gradient / length * longest, gradient)
