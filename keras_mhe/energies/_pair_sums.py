"""Sums over all pairs of neurons, from one matrix of cosines or from panels of it."""

import math
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import has_compiler, matmul, on_cpu, write_slice
from keras_mhe._typing import Shape, Tensor
from keras_mhe.energies._blocks import off_diagonal_mask
from keras_mhe.energies._potential import Potential

# Up to `_CPU_MATRIX` neurons, one matrix is as fast as panels of `_CPU_PANEL` columns. Both were
# measured on CPUs, where a panel should fit into the caches. Without a compiler, each elementwise
# operation visits the whole matrix, which is slow for more than `_EAGER_MATRIX` neurons.
_CPU_MATRIX, _CPU_PANEL, _EAGER_MATRIX = 1408, 704, 512
# On an H100, wider panels were at most 8 % faster, and took up to four times the memory.
_DEVICE_MATRIX, _DEVICE_PANEL = 4096, 4096
# For fewer neurons, sums from one half of the matrix are not faster.
_LEAST_FOLDED = 512


def _is_folded(columns: Any, potential: Potential) -> bool:
    """Whether to compute sums from one half of the matrix of cosines, apart from the slopes.

    On a GPU, XLA computes all sums and slopes in one pass. Without a compiler, or if slopes are as
    expensive as values, a second call of the potential costs more than it saves.
    """
    many = isinstance(columns, int) and columns >= _LEAST_FOLDED
    return many and potential.cheap_slopes and has_compiler() and on_cpu()


def _entries(columns: int, potential: Potential) -> int:
    """The number of sums of one matrix."""
    return columns - columns // 2 if _is_folded(columns, potential) else columns


def _folded_sums(cosine: Tensor, potential: Potential, n: Any = None) -> Tensor:
    """Sums of all energies from one half of the matrix, which is symmetric.

    Two triangles fill a square: the pairs of the first half of the neurons above the diagonal, and
    those of the last half below it. Beside it are the pairs of one neuron of each half. The middle
    one of an odd number of neurons remains.
    """
    columns = cosine.shape[-1]
    half, rest = columns // 2, columns - columns // 2
    index = ops.arange(columns, dtype="int32")
    row, column = index[:half, None], index[None, :half]
    first, last = cosine[..., :half, :half], cosine[..., rest:, rest:]
    own, _ = potential(ops.where(row < column, first, last))
    across, _ = potential(cosine[..., :half, rest:])
    apart = row != column
    if n is not None:
        apart = ops.logical_and(apart, ops.where(row < column, column, row + rest) < n)
        across = ops.where(column + rest < n, across, 0.0)
    sums = ops.sum(ops.where(apart, own, 0.0) + across, axis=-2)
    if half < rest:
        middle, _ = potential(cosine[..., half, :])
        others = index != half
        if n is not None:
            others = ops.logical_and(others, ops.maximum(index, half) < n)
        middle = ops.sum(ops.where(others, middle, 0.0), axis=-1, keepdims=True)
        sums = ops.concatenate([sums, middle], axis=-1)
    return 2.0 * sums


def sums_and_slopes(
    cosine: Tensor, potential: Potential, n: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of energies, which add up to that of all pairs, slopes, and the mask of pairs.

    Slopes are zero outside of the mask.
    """
    columns = ops.shape(cosine)[-1]
    index = ops.arange(columns, dtype="int32")
    value, slope = potential(cosine)
    mask = index[:, None] != index[None, :]
    if n is not None:
        mask = ops.logical_and(mask, ops.maximum(index[:, None], index[None, :]) < n)
    if _is_folded(columns, potential):
        sums = _folded_sums(cosine, potential, n)
        # XLA overwrites the cosines with the slopes if these come last. Otherwise it needs another
        # matrix, which costs as much as the sums.
        total = ops.sum(sums)
        return sums, ops.where(ops.logical_or(mask, total != total), slope, 0.0), mask
    return ops.sum(ops.where(mask, value, 0.0), axis=-2), ops.where(mask, slope, 0.0), mask


def _sums_by_matrix(unit: Tensor, potential: Potential, n: Any = None) -> tuple[Tensor, Tensor]:
    cosine = matmul(ops.swapaxes(unit, -1, -2), unit)
    sums, slope, _ = sums_and_slopes(cosine, potential, n)
    return sums, matmul(unit, slope)


def _sums_by_panels(
    unit: Tensor, potential: Potential, width: int, n: Any = None
) -> tuple[Tensor, Tensor]:
    *batch, _, columns = unit.shape
    count = -(-columns // width)
    # All panels have the same width, a multiple of 16, which suits the hardware.
    width = -(-columns // (16 * count)) * 16
    neurons = ops.pad(unit, [(0, 0)] * (len(batch) + 1) + [(0, count * width - columns)])
    sums, gradient = _sums_of_panels(neurons, potential, width, columns if n is None else n)
    return sums, gradient[..., :columns]


def _sums_of_panels(
    neurons: Tensor, potential: Potential, width: int, n: Any
) -> tuple[Tensor, Tensor]:
    """Visits the panels i <= j of the N x N matrix, column by column, and stores none of them.

    The number of columns is a multiple of `width`. The columns after the first n are zero.
    """
    *batch, _, columns = neurons.shape
    index = ops.arange(width, dtype="int32")
    mask = off_diagonal_mask(width, index)

    def start(i: Tensor) -> tuple[Tensor, ...]:
        # `i * 0` has the integer type of `i`; JAX requires one type for all indices.
        return (*[i * 0] * (len(batch) + 1), i * width)

    def panel(array: Tensor, i: Tensor) -> Tensor:
        return ops.slice(array, start(i), (*batch, array.shape[-2], width))

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
            # sums are dropped below. Halves are added first, because sums are slow.
            value = value[..., : width // 2, :] + value[..., width // 2 :, :]
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
    sums, gradient = ops.fori_loop(0, -(-n // width), column, carry)
    if columns is None:
        columns = ops.shape(neurons)[-1]
    sums = ops.where(ops.arange(columns, dtype="int32") < n, sums, 0.0)
    # Sum within panels first: one float32 sum over all neurons would lose digits.
    return ops.sum(ops.reshape(sums, (-1, width)), axis=-1), gradient


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


def _sums_of_unknown_size(unit: Tensor, potential: Potential, n: Tensor) -> tuple[Tensor, Tensor]:
    """`pair_sums` on TensorFlow, for a number of columns that is known only when it runs."""
    matrix, width = _matrix_and_panel_size()
    columns = ops.shape(unit)[-1]

    def padded(array: Tensor) -> Tensor:
        missing = columns - ops.shape(array)[-1]
        return ops.pad(array, [*[(0, 0)] * (len(array.shape) - 1), (0, missing)])

    def by_matrix() -> tuple[Tensor, Tensor]:
        # XLA compiles this for many columns too.
        sums, gradient = _sums_by_matrix(unit[..., :matrix], potential, n)
        return padded(sums), padded(gradient)

    def by_panels() -> tuple[Tensor, Tensor]:
        neurons = ops.pad(unit, [(0, 0), (0, -columns % width)])
        sums, gradient = _sums_of_panels(neurons, potential, width, n)
        return padded(sums), gradient[..., :columns]

    return ops.cond(columns <= matrix, by_matrix, by_panels)


def pair_sums(unit: Tensor, potential: Potential, n: Any = None) -> tuple[Tensor, Tensor]:
    """Sums over the ordered pairs of different neurons.

    Args:
        unit: unit neurons of shape `(..., d, n)`. Each leading index is a separate set of neurons.
        potential: energy of a pair.
        n: number of neurons, a scalar tensor, if further columns are zero and no neurons. Without
            leading axes, the number of columns may then be unknown.

    Returns:
        A tensor whose entries add up to the energies of the pairs, and a tensor shaped like `unit`.
        The second is the derivative of half of the sum: each pair occurs once for each of its two
        neurons.
    """
    *batch, dimension, columns = unit.shape
    if columns is None:
        return _sums_of_unknown_size(unit, potential, n)
    width = panel_width(columns)

    def sums(unit: Tensor) -> tuple[Tensor, Tensor]:
        if width is None:
            return _sums_by_matrix(unit, potential, n)
        return _sums_by_panels(unit, potential, width, n)

    sets = math.prod(batch)
    chunk = _sets_at_a_time(sets, columns)
    if chunk == sets:
        return sums(unit)
    unit = ops.reshape(unit, (sets, dimension, columns))

    def body(i: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        all_sums, gradient = carry
        start = (i * chunk, i * 0, i * 0)
        own_sums, own_gradient = sums(ops.slice(unit, start, (chunk, dimension, columns)))
        all_sums = write_slice(all_sums, start[:2], ops.reshape(own_sums, (chunk, -1)))
        return all_sums, write_slice(gradient, start, own_gradient)

    entries = _entries(columns, potential) if width is None else -(-columns // width)
    zeros = ops.zeros((sets, entries), dtype=keras.backend.standardize_dtype(unit.dtype))
    all_sums, gradient = ops.fori_loop(0, sets // chunk, body, (zeros, ops.zeros_like(unit)))
    return all_sums, ops.reshape(gradient, (*batch, dimension, columns))
