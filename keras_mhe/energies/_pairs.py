"""The energies of all pairs of neurons, and their gradients."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import at_least, matmul
from keras_mhe._typing import Tensor
from keras_mhe.energies._blocks import map_column_blocks, off_diagonal_mask
from keras_mhe.energies._gaussian import GaussianPotential
from keras_mhe.energies._neurons import (
    neuron_norms,
    scaled_neurons,
    tangent_part,
    unit_neurons,
)
from keras_mhe.energies._pair_sums import pair_sums, sums_and_slopes
from keras_mhe.energies._potential import Potential
from keras_mhe.energies._programs import program_for

# For more neurons, the radial part takes less time as a pass over the neurons than over the pairs.
_LARGEST_WITH_RADIAL_PART = 704


def relative_to_closest(
    potential: Potential,
    points: Tensor,
    neurons: Tensor,
    is_pair: Callable[[Tensor], Tensor],
) -> Potential:
    """The potential relative to its value for the closest pair, if its mean may underflow.

    Args:
        potential: energy of a pair.
        points: unit neurons of shape `(..., d, m)`.
        neurons: unit neurons of shape `(..., d, n)`.
        is_pair: function of the indices of some neurons. It returns a mask of shape
            `(m, len(index))`, which is True for the pairs of the energy.
    """
    if not isinstance(potential, GaussianPotential) or not potential.may_underflow:
        return potential
    half_space = potential.half_space

    def closest(columns: Tensor, index: Tensor) -> tuple[Tensor]:
        cosine = matmul(ops.swapaxes(points, -1, -2), columns)
        closeness = ops.abs(cosine) if half_space else cosine
        closeness = ops.where(is_pair(index), closeness, -1.0)
        return (ops.max(closeness, axis=-2, keepdims=True),)

    # The energy does not depend on the unit of its values, so the unit needs no gradient.
    return potential.relative_to(ops.stop_gradient(ops.max(map_column_blocks(closest, neurons)[0])))


def mean_over_points(
    sums: Tensor, pairs: int | Tensor, n: int | Tensor, potential: Potential
) -> tuple[Tensor, Any]:
    """The energy of neurons, and the weight of an ordered pair in its derivative.

    Args:
        sums: tensor whose entries add up to the energies of ordered pairs of different neurons.
        pairs: number of these pairs, an integer or a scalar tensor. They may be a sample of the
            pairs of the layer.
        n: number of neurons in the layer, an integer or a scalar tensor.
        potential: energy of a pair.
    """
    dtype = keras.backend.standardize_dtype(sums.dtype)
    share, constant = potential.shares(ops.cast(n, dtype) if ops.is_tensor(n) else n)
    if ops.is_tensor(pairs):
        weight = share / at_least(ops.cast(pairs, dtype), 1.0)
    else:
        weight = 1.0 / max(pairs, 1) * share
    # Multiply before the sum: XLA would merge two float32 sums into one over N^2 terms, which
    # loses four digits.
    energy, rate = potential.energy_and_rate(ops.sum(sums * weight) + constant)
    return energy, weight * rate


def value_and_tangent(
    matrix: Tensor, potential: Potential, n: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of a matrix of neurons, and the two factors of its gradient.

    `G_i = r_i (I - u_i u_i^T) sum_j D_ij u_j`, with the unit neurons `u_i`, their reciprocal norms
    `r_i` and the derivative `D_ij` of the energy with respect to the cosine of neurons i and j.
    This takes two products of `2 N^2 d` operations, or 3/4 of that by panels i <= j, in memory
    `O(N d)`. Half space only changes `D`; the mirrored points are never built.

    Args:
        matrix: tensor of shape `(d, N)` or `(groups, d, N)`.
        potential: energy of a pair. With n, its mean must not underflow.
        n: number of neurons, a scalar tensor, if further columns are zero and no neurons.

    Returns:
        A scalar, the mean over groups; a tensor shaped like `matrix`, the gradient without `r_i`;
        and the reciprocal norms `r_i`.
    """
    *batch, _, columns = matrix.shape
    unit, reciprocal = unit_neurons(matrix, n)
    if n is None:
        is_pair = functools.partial(off_diagonal_mask, columns)
        potential = relative_to_closest(potential, unit, unit, is_pair)
    sums, direction_gradient = pair_sums(unit, potential, n)
    # As a float, because the product may exceed the largest integer of 32 bits.
    count = columns if n is None else ops.cast(n, matrix.dtype)
    pairs = math.prod(batch) * count * (count - 1)
    value, weight = mean_over_points(sums, pairs, count, potential)
    return value, 2.0 * weight * tangent_part(unit, direction_gradient), reciprocal


def value_and_gradient(matrix: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    """The energy of a matrix of neurons, and its gradient."""
    value, tangent, reciprocal = value_and_tangent(matrix, potential)
    return value, tangent * reciprocal


def _energy_and_mixing(gram: Tensor, norm: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    """The energy, and the matrix that mixes scaled neurons to tangents.

    This part of the energy does not depend on the number of coordinates.

    Args:
        gram: products of the scaled neurons, of shape `(..., n, n)`.
        norm: norms of the scaled neurons, of shape `(..., 1, n)`.
        potential: energy of a pair.
    """
    *batch, _, n = gram.shape
    columns = 1.0 / norm
    rows = ops.swapaxes(columns, -1, -2)
    cosine = rows * gram * columns
    sums, slope, mask = sums_and_slopes(cosine, potential)
    energy, weight = mean_over_points(sums, math.prod(batch) * n * (n - 1), n, potential)
    # Each pair occurs once in the derivative, but the energy contains it in both orders.
    if n > _LARGEST_WITH_RADIAL_PART:
        return energy, 2.0 * weight * rows * slope
    # On the diagonal: minus the radial part of the derivative with respect to a unit neuron.
    radial = columns * ops.sum(slope * cosine, axis=-2, keepdims=True)
    return energy, 2.0 * weight * ops.where(mask, rows * slope, -radial)


def value_and_tangent_by_mixing(
    matrix: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    """As `value_and_tangent`, for a matrix with any number of coordinates, which may be unknown.

    With the scaled neurons X, the energy and a matrix M depend on the products `X^T X` only, and
    `X M` is the tangent. If the model is not compiled, XLA compiles the part between the products.
    """
    scaled, largest = scaled_neurons(matrix)
    gram = matmul(ops.swapaxes(scaled, -1, -2), scaled)
    square = ops.diagonal(gram, axis1=-2, axis2=-1)[..., None, :]
    norm, reciprocal = neuron_norms(square, largest)
    part = program_for(_energy_and_mixing, gram, norm, options=(potential,))
    value, mixing = part(gram, norm)
    mixed = matmul(scaled, mixing)
    if matrix.shape[-1] > _LARGEST_WITH_RADIAL_PART:
        mixed = tangent_part(scaled / norm, mixed)
    return value, mixed, reciprocal
