"""A bound on the gradients of neurons, which keeps training steps short."""

import math
from typing import Any

import numpy as np
from keras import ops

from keras_mhe._backend import at_most
from keras_mhe._typing import Tensor
from keras_mhe.energies._neurons import unit_neurons
from keras_mhe.energies._quadrature import pair_distribution

# Found by experiments: the largest force times the number of neurons, relative to the square of
# the attainable angle; the largest force of all; and the smallest norm of a neuron in the bound.
_STIFFNESS, _LARGEST_FORCE, _SMALLEST_NORM = 25.0, 1.0, 0.5


def attainable_angle(n: int, d: int, half_space: bool) -> float:
    """An upper bound of the smallest angle of n neurons, in radians."""
    if n == 1:
        return math.pi / 2 if half_space else math.pi
    cosines, _ = pair_distribution(n, d, half_space)
    return math.acos(float(np.clip(cosines.max(), -1.0, 1.0)))


def largest_force(n: int, d: int, half_space: bool, moving: int) -> float:
    """The bound on `|w_i| |gradient_i|`: `min(1, 25 angle^2 / moving)`.

    Args:
        n: number of neurons that repel each other.
        d: number of coordinates of a neuron.
        half_space: whether mirror images count as neurons.
        moving: number of neurons that have a gradient. The mean energy gives each of them a share.
    """
    return min(_LARGEST_FORCE, _STIFFNESS * attainable_angle(n, d, half_space) ** 2 / moving)


def _norms(reciprocal: Tensor) -> Tensor:
    zero = reciprocal == 0.0
    return ops.where(zero, _SMALLEST_NORM, 1.0 / ops.where(zero, 1.0, reciprocal))


def bound_shares(tangent: Tensor, factor: Any, reciprocal: Tensor, force: Any) -> Tensor:
    """The share of `factor * tangent * reciprocal`, the gradient of each neuron, in the bound.

    `|share_i gradient_i| <= force / max(|w_i|, 0.5)`. A gradient step of size `rate` then turns a
    neuron by at most `rate * force / |w_i|^2` radians, and moves a short neuron by at most
    `2 * rate * force`. The share of a gradient that is short enough is 1, which keeps every bit of
    it, so minima do not move.

    Norms are those in gradients: at least 1 % of the root mean square of all norms.

    Args:
        tangent: tensor of shape `(..., d, N)`.
        factor: number or scalar tensor.
        reciprocal: reciprocal norms of shape `(..., 1, N)`, from `unit_neurons`.
        force: positive number, from `largest_force`.
    """
    # The tangent has a moderate size, whatever the norm. Its square does not overflow.
    square = ops.square(factor) * ops.sum(ops.square(tangent), axis=-2, keepdims=True)
    longest = force * at_most(_norms(reciprocal) / _SMALLEST_NORM, 1.0)
    long = square > ops.square(longest)
    return ops.where(long, longest * ops.rsqrt(ops.where(long, square, 1.0)), 1.0)


def bounded_gradient(matrix: Tensor, gradient: Tensor, force: Any) -> Tensor:
    """Shortens the gradients of neurons as `bound_shares`, and keeps their directions.

    Args:
        matrix: tensor of shape `(..., d, N)`.
        gradient: tensor of the same shape, the gradient of a loss.
        force: positive number, from `largest_force`.
    """
    _, reciprocal = unit_neurons(matrix)
    return gradient * bound_shares(gradient * _norms(reciprocal), 1.0, reciprocal, force)
