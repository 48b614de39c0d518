"""Sums over all pairs of neurons, from one matrix of cosines or from panels of it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import at_least, has_compiler, matmul, on_cpu, write_slice
from keras_mhe._typing import Shape, Tensor
from keras_mhe.energies._blocks import map_column_blocks, off_diagonal_mask
from keras_mhe.energies._gaussian import GaussianPotential
from keras_mhe.energies._neurons import (
    neuron_norms,
    scaled_neurons,
    tangent_part,
    unit_neurons,
)
from keras_mhe.energies._potential import Potential
from keras_mhe.energies._programs import program_for

# Up to `_CPU_MATRIX` neurons, one matrix is as fast as panels of `_CPU_PANEL` columns. Both were
# measured on CPUs, where a panel should fit into the caches. Without a compiler, each elementwise
# operation visits the whole matrix, which is slow for more than `_EAGER_MATRIX` neurons.
_CPU_MATRIX, _CPU_PANEL, _EAGER_MATRIX = 1408, 704, 512
# On an H100, wider panels were at most 8 % faster, and took up to four times the memory.
_DEVICE_MATRIX, _DEVICE_PANEL = 4096, 4096


def _sums_and_slopes(cosine: Tensor, potential: Potential) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the energies in each column, slopes that are zero on the diagonal, and the mask."""
    n = cosine.shape[-1]
    value, slope = potential(cosine)
    mask = off_diagonal_mask(n, ops.arange(n, dtype="int32"))
    sums = ops.sum(ops.where(mask, value, 0.0), axis=-2)
    return sums, ops.where(mask, slope, 0.0), mask


def _sums_by_matrix(unit: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    cosine = matmul(ops.swapaxes(unit, -1, -2), unit)
    sums, slope, _ = _sums_and_slopes(cosine, potential)
    return sums, matmul(unit, slope)


def _sums_by_panels(unit: Tensor, potential: Potential, width: int) -> tuple[Tensor, Tensor]:
    """Visits the panels i <= j of the N x N matrix, column by column, and stores none of them."""
    *batch, _, n = unit.shape
    count = -(-n // width)
    # All panels have the same width, a multiple of 16, which suits the hardware.
    width = -(-n // (16 * count)) * 16
    neurons = ops.pad(unit, [(0, 0)] * (len(batch) + 1) + [(0, count * width - n)])
    index = ops.arange(width, dtype="int32")
    mask = off_diagonal_mask(width, index)

    def start(i: Tensor) -> tuple[Tensor, ...]:
        # `i * 0` has the integer type of `i`; JAX requires one type for all indices.
        return (*[i * 0] * (len(batch) + 1), i * width)

    def panel(array: Tensor, i: Tensor) -> Tensor:
        return ops.slice(array, start(i), (*array.shape[:-1], width))

    def column(j: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        sums, gradient = carry
        right = panel(neurons, j)
        value, slope = potential(matmul(ops.swapaxes(right, -1, -2), right))
        # The last panel is padded with zeros, which are not neurons.
        pairs = ops.logical_and(mask, (j * width + index < n)[:, None])
        own_sums = ops.sum(ops.where(pairs, value, 0.0), axis=-2, keepdims=True)
        own_gradient = matmul(right, ops.where(mask, slope, 0.0))

        def row(i: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            own_sums, own_gradient, gradient = carry
            left = panel(neurons, i)
            value, slope = potential(matmul(ops.swapaxes(left, -1, -2), right))
            # Each pair counts twice, once for each order. Only columns contain padding. Their
            # sums are dropped below.
            own_sums = own_sums + 2.0 * ops.sum(value, axis=-2, keepdims=True)
            change = matmul(right, ops.swapaxes(slope, -1, -2))
            gradient = write_slice(gradient, start(i), panel(gradient, i) + change)
            return own_sums, own_gradient + matmul(left, slope), gradient

        own_sums, own_gradient, gradient = ops.fori_loop(
            0, j, row, (own_sums, own_gradient, gradient)
        )
        sums = write_slice(sums, start(j), own_sums)
        return sums, write_slice(gradient, start(j), own_gradient)

    carry = (ops.zeros_like(neurons[..., :1, :]), ops.zeros_like(neurons))
    sums, gradient = ops.fori_loop(0, count, column, carry)
    sums = ops.where(ops.arange(count * width, dtype="int32") < n, sums, 0.0)
    # Sum within panels first: one float32 sum over all neurons would lose digits.
    sums = ops.sum(ops.reshape(sums, (-1, width)), axis=-1)
    return sums, gradient[..., :n]


def _matrix_and_panel_size() -> tuple[int, int]:
    """The largest number of neurons for one matrix of all pairs, and the width of panels."""
    if not on_cpu():
        return _DEVICE_MATRIX, _DEVICE_PANEL
    return (_CPU_MATRIX if has_compiler() else _EAGER_MATRIX), _CPU_PANEL


def panel_width(n: int) -> int | None:
    """The width of a panel for n neurons; `None` if one matrix of all pairs is as fast."""
    matrix, panel = _matrix_and_panel_size()
    return None if n <= matrix else panel


def _sets_at_a_time(sets: int, n: int) -> int:
    """How many sets of n neurons have at most as many pairs as the largest single matrix."""
    most = max(1, _matrix_and_panel_size()[0] ** 2 // n**2)
    return next(k for k in range(min(sets, most), 0, -1) if sets % k == 0)


def is_computed_at_once(shape: Shape) -> bool:
    """Whether the groups of a matrix of neurons of this shape are computed together."""
    *batch, _, n = shape
    return _sets_at_a_time(math.prod(batch), n) == math.prod(batch)


def pair_sums(unit: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    """Sums over the ordered pairs of different neurons.

    Args:
        unit: unit neurons of shape `(..., d, n)`. Each leading index is a separate set of neurons.
        potential: energy of a pair.

    Returns:
        A tensor whose entries add up to the energies of the pairs, and a tensor shaped like `unit`.
        The second is the derivative of half of the sum: each pair occurs once for each of its two
        neurons.
    """
    *batch, dimension, n = unit.shape
    width = panel_width(n)

    def sums(unit: Tensor) -> tuple[Tensor, Tensor]:
        if width is None:
            return _sums_by_matrix(unit, potential)
        return _sums_by_panels(unit, potential, width)

    sets = math.prod(batch)
    chunk = _sets_at_a_time(sets, n)
    if chunk == sets:
        return sums(unit)
    unit = ops.reshape(unit, (sets, dimension, n))

    def body(i: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        all_sums, gradient = carry
        start = (i * chunk, i * 0, i * 0)
        own_sums, own_gradient = sums(ops.slice(unit, start, (chunk, dimension, n)))
        all_sums = write_slice(all_sums, start[:2], ops.reshape(own_sums, (chunk, -1)))
        return all_sums, write_slice(gradient, start, own_gradient)

    entries = n if width is None else -(-n // width)
    zeros = ops.zeros((sets, entries), dtype=keras.backend.standardize_dtype(unit.dtype))
    all_sums, gradient = ops.fori_loop(0, sets // chunk, body, (zeros, ops.zeros_like(unit)))
    return all_sums, ops.reshape(gradient, (*batch, dimension, n))


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
    if not isinstance(potential, GaussianPotential) or not potential.wide:
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


def value_and_tangent(matrix: Tensor, potential: Potential) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of a matrix of neurons, and the two factors of its gradient.

    `G_i = r_i (I - u_i u_i^T) sum_j D_ij u_j`, with the unit neurons `u_i`, their reciprocal norms
    `r_i` and the derivative `D_ij` of the energy with respect to the cosine of neurons i and j.
    This takes two products of `2 N^2 d` operations, or 3/4 of that by panels i <= j, in memory
    `O(N d)`. Half space only changes `D`; the mirrored points are never built.

    Args:
        matrix: tensor of shape `(d, N)` or `(groups, d, N)`.
        potential: energy of a pair.

    Returns:
        A scalar, the mean over groups; a tensor shaped like `matrix`, the gradient without `r_i`;
        and the reciprocal norms `r_i`.
    """
    *batch, _, n = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    is_pair = functools.partial(off_diagonal_mask, n)
    potential = relative_to_closest(potential, unit, unit, is_pair)
    sums, direction_gradient = pair_sums(unit, potential)
    pairs = math.prod(batch) * n * (n - 1)
    value, weight = mean_over_points(sums, pairs, n, potential)
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
    sums, slope, mask = _sums_and_slopes(cosine, potential)
    energy, weight = mean_over_points(sums, math.prod(batch) * n * (n - 1), n, potential)
    # On the diagonal: minus the radial part of the derivative with respect to a unit neuron.
    radial = columns * ops.sum(slope * cosine, axis=-2, keepdims=True)
    # Each pair occurs once in the derivative, but the energy contains it in both orders.
    return energy, 2.0 * weight * ops.where(mask, rows * slope, -radial)


def value_and_tangent_by_parts(
    matrix: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    """As `value_and_tangent`, for a matrix with any number of coordinates, which may be unknown.

    With the scaled neurons X, the energy and a matrix M depend on the products `X^T X` only, and
    `X M` is the tangent. XLA compiles the part between the two products.
    """
    scaled, largest = scaled_neurons(matrix)
    gram = matmul(ops.swapaxes(scaled, -1, -2), scaled)
    square = ops.diagonal(gram, axis1=-2, axis2=-1)[..., None, :]
    norm, reciprocal = neuron_norms(square, largest)
    part = program_for(_energy_and_mixing, gram, norm, options=(potential,))
    value, mixing = part(gram, norm)
    return value, matmul(scaled, mixing), reciprocal
