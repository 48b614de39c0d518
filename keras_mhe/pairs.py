"""The energy of all pairs of neurons and its gradient, by one matrix or by panels of it."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import on_cpu
from keras_mhe.potentials import Potential
from keras_mhe.strips import distinct

# Neurons shorter than this share of the root mean square norm get no larger a gradient.
_NORM_FLOOR = 0.01
# Up to so many neurons one matrix is as quick as panels of it, and so wide are the panels:
# measured on a CPU, where a panel should fit into its caches.
_CPU_MATRIX, _CPU_PANEL = 1408, 704
# Elsewhere a panel must keep the device busy: its size is chosen by memory, not measured.
_DEVICE_MATRIX, _DEVICE_PANEL = 16384, 8192


def unit_neurons(matrix: Any) -> tuple[Any, Any]:
    """The neurons on the sphere, and the reciprocal norms that scale their gradient.

    Both are finite whatever the norms, and zero for a neuron of norm zero.
    """
    limits = np.finfo(keras.backend.standardize_dtype(matrix.dtype))
    # Scales whose reciprocals are normal numbers: XLA multiplies by these and flushes others.
    tiny, huge = float(limits.tiny), float(limits.max) / 8
    largest = ops.max(ops.abs(matrix), axis=-2, keepdims=True)
    scale = ops.where(largest < tiny, 1.0, ops.minimum(largest, huge))
    # Entries near 1, so that their squares neither overflow nor vanish.
    matrix = matrix / scale
    square = ops.sum(ops.square(matrix), axis=-2, keepdims=True)
    # Told by the sum, in which a NaN shows: XLA's maximum of nothing but NaN is -inf.
    zero = square == 0.0
    norm = ops.sqrt(ops.where(zero, 1.0, square))
    unit = matrix / norm

    # A floor under the norms keeps a short neuron from being thrown far by one step.
    top = ops.clip(ops.max(largest), tiny, huge)
    norm = ops.where(zero, 0.0, norm) * (scale / top)
    # Not `ops.mean`, which rounds float64 to float32 on JAX.
    mean_square = ops.sum(ops.square(norm) / math.prod(norm.shape))
    floor = _NORM_FLOOR * ops.sqrt(ops.maximum(mean_square, tiny))
    reciprocal = 1.0 / ops.maximum(ops.maximum(norm, floor) * top, tiny)
    return unit, ops.where(zero, 0.0, reciprocal)


def gradient_from_pull(unit: Any, reciprocal: Any, pull: Any, weight: Any) -> Any:
    """The gradient in the neurons from that in their directions: what turns them is left of it."""
    tangent = pull - unit * ops.sum(unit * pull, axis=-2, keepdims=True)
    return tangent * (reciprocal * weight)


def _by_matrix(unit: Any, potential: Potential) -> tuple[Any, Any]:
    n = unit.shape[-1]
    value, slope = potential(ops.matmul(ops.swapaxes(unit, -1, -2), unit))
    others = distinct(n, ops.arange(n, dtype="int32"))
    sums = ops.sum(ops.where(others, value, 0.0), axis=-2)
    return sums, ops.matmul(unit, ops.where(others, slope, 0.0))


def _by_panels(unit: Any, potential: Potential, width: int) -> tuple[Any, Any]:
    """Walks the panels i <= j of the N x N matrix, column by column, and keeps none of them."""
    *batch, _, n = unit.shape
    count = -(-n // width)
    # All panels equally wide, and a multiple of what the hardware likes.
    width = -(-n // (16 * count)) * 16
    neurons = ops.pad(unit, [(0, 0)] * (len(batch) + 1) + [(0, count * width - n)])
    index = ops.arange(width, dtype="int32")
    others = distinct(width, index)

    def start(i: Any) -> tuple[Any, ...]:
        # Of one integer type: JAX asks for that.
        return (*[i * 0] * (len(batch) + 1), i * width)

    def panel(array: Any, i: Any) -> Any:
        return ops.slice(array, start(i), (*array.shape[:-1], width))

    def column(j: Any, carry: Any) -> Any:
        sums, pull = carry
        right = panel(neurons, j)
        value, slope = potential(ops.matmul(ops.swapaxes(right, -1, -2), right))
        # Not the zeros that fill the last panel up.
        true = ops.logical_and(others, (j * width + index < n)[:, None])
        own_sums = ops.sum(ops.where(true, value, 0.0), axis=-2, keepdims=True)
        own_pull = ops.matmul(right, ops.where(others, slope, 0.0))

        def row(i: Any, carry: Any) -> Any:
            own_sums, own_pull, pull = carry
            left = panel(neurons, i)
            value, slope = potential(ops.matmul(ops.swapaxes(left, -1, -2), right))
            # A pair stands for both its orders. Zeros are in columns only, whose sums we drop.
            own_sums = own_sums + 2.0 * ops.sum(value, axis=-2, keepdims=True)
            change = ops.matmul(right, ops.swapaxes(slope, -1, -2))
            pull = ops.slice_update(pull, start(i), panel(pull, i) + change)
            return own_sums, own_pull + ops.matmul(left, slope), pull

        own_sums, own_pull, pull = ops.fori_loop(0, j, row, (own_sums, own_pull, pull))
        sums = ops.slice_update(sums, start(j), own_sums)
        return sums, ops.slice_update(pull, start(j), own_pull)

    carry = (ops.zeros_like(neurons[..., :1, :]), ops.zeros_like(neurons))
    sums, pull = ops.fori_loop(0, count, column, carry)
    sums = ops.where(ops.arange(count * width, dtype="int32") < n, sums, 0.0)
    # Each panel's own sum first: one float32 sum over all neurons would lose digits.
    sums = ops.sum(ops.reshape(sums, (-1, width)), axis=-1)
    return sums, pull[..., :n]


def _sizes() -> tuple[int, int]:
    """How many neurons one matrix of all pairs may have, and how many a panel has."""
    return (_CPU_MATRIX, _CPU_PANEL) if on_cpu() else (_DEVICE_MATRIX, _DEVICE_PANEL)


def panel_width(n: int) -> int | None:
    """How many neurons a panel holds; `None` where one matrix of all pairs is as quick."""
    matrix, panel = _sizes()
    return None if n <= matrix else panel


def pair_sums(unit: Any, potential: Potential) -> tuple[Any, Any]:
    """Sums over the ordered pairs of different neurons.

    Args:
        unit: unit neurons of shape `(..., d, n)`; those of different leading indices do not meet.
        potential: energy of a pair.

    Returns:
        A tensor whose entries add up to the energies, and one like `unit`, the derivative of half
        that sum: one order of each pair moves a neuron.
    """
    *batch, dimension, n = unit.shape
    width = panel_width(n)

    def sums_and_pull(unit: Any) -> tuple[Any, Any]:
        return _by_matrix(unit, potential) if width is None else _by_panels(unit, potential, width)

    # As many sets at a time as have together no more pairs than the largest single matrix.
    sets, most = math.prod(batch), max(1, _sizes()[0] ** 2 // n**2)
    share = next(k for k in range(min(sets, most), 0, -1) if sets % k == 0)
    if share == sets:
        return sums_and_pull(unit)
    unit = ops.reshape(unit, (sets, dimension, n))

    def body(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        sums, pull = carry
        start = (i * share, i * 0, i * 0)
        own_sums, own_pull = sums_and_pull(ops.slice(unit, start, (share, dimension, n)))
        sums = ops.slice_update(sums, start[:2], ops.reshape(own_sums, (share, -1)))
        return sums, ops.slice_update(pull, start, own_pull)

    entries = n if width is None else -(-n // width)
    zeros = ops.zeros((sets, entries), dtype=keras.backend.standardize_dtype(unit.dtype))
    sums, pull = ops.fori_loop(0, sets // share, body, (zeros, ops.zeros_like(unit)))
    return sums, ops.reshape(pull, (*batch, dimension, n))


def mean_over_points(sums: Any, pairs: int, n: int, potential: Potential) -> tuple[Any, Any]:
    """The mean energy, and the weight of an ordered pair in it.

    Args:
        sums: tensor whose entries add up to the energies of ordered pairs of different neurons.
        pairs: how many these are.
        n: number of neurons of the whole, of which `pairs` may be a sample.
        potential: energy of a pair.
    """
    share, constant = potential.shares(n)
    weight = 1.0 / max(pairs, 1) * share
    # Divided before they are added: XLA would make one float32 sum out of two, and that over N^2
    # terms loses four digits.
    return ops.sum(sums * weight) + constant, weight


def value_and_gradient(matrix: Any, potential: Potential) -> tuple[Any, Any]:
    """The energy of a matrix of neurons, and its gradient.

    `G_i = r_i (I - u_i u_i^T) sum_j D_ij u_j`, with `u_i` the unit neurons, `r_i` their reciprocal
    norms and `D_ij` the slope of the energy in the cosine of neurons i and j: two products of
    `2 N^2 d` operations, or 3/4 of that by panels i <= j, in memory `O(N d)`. Half space folds
    into `D`, the mirrored points are never built.

    Args:
        matrix: tensor of shape `(d, N)` or `(groups, d, N)`.
        potential: energy of a pair.

    Returns:
        A scalar, the mean over groups, and a tensor shaped like `matrix`.
    """
    n = matrix.shape[-1]
    unit, reciprocal = unit_neurons(matrix)
    sums, pull = pair_sums(unit, potential)
    pairs = math.prod(matrix.shape) // matrix.shape[-2] * (n - 1)
    value, weight = mean_over_points(sums, pairs, n, potential)
    # Both orders of a pair move its neurons.
    return value, gradient_from_pull(unit, reciprocal, pull, 2.0 * weight)
