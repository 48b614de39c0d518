"""The smallest distance between neurons, in memory proportional to the kernel."""

import functools
import math
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled
from keras_mhe.energy import with_gradient
from keras_mhe.pairs import gradient_from_pull, unit_neurons
from keras_mhe.strips import by_strips, distinct


def _partners(unit: Any, half_space: bool) -> Any:
    """For each neuron the index of the nearest other, or of the other nearest to its line."""
    n = unit.shape[-1]

    def partners(own: Any, index: Any) -> tuple[Any]:
        cosine = ops.matmul(ops.swapaxes(unit, -1, -2), own)
        closeness = ops.abs(cosine) if half_space else cosine
        closeness = ops.where(distinct(n, index), closeness, -2.0)
        return (ops.cast(ops.argmax(closeness, axis=-2, keepdims=True), "int32"),)

    return by_strips(partners, unit)[0][..., 0, :]


def _value_and_gradient(matrix: Any, half_space: bool, every: bool) -> tuple[Any, Any]:
    *batch, d, n = matrix.shape
    groups = math.prod(batch)
    unit, reciprocal = unit_neurons(matrix)
    # Neurons as rows, those of all groups in one list.
    rows = ops.reshape(ops.swapaxes(unit, -1, -2), (groups * n, d))
    offset = n * ops.arange(groups, dtype="int32")[:, None]
    partner = ops.reshape(ops.reshape(_partners(unit, half_space), (groups, n)) + offset, (-1,))
    other = ops.take(rows, partner, axis=0)
    mirrored = ops.sum(rows * other, axis=-1, keepdims=True) < 0
    sign = 1.0 - 2.0 * ops.cast(mirrored, unit.dtype) if half_space else 1.0
    # From differences: cosines near 1 say little of small distances.
    gap = rows - sign * other
    zero = ops.cast(ops.reshape(reciprocal == 0, (-1,)), unit.dtype)
    # A zero neuron stands at right angles to all others.
    square = ops.sum(ops.square(gap), axis=-1) + zero + ops.take(zero, partner, axis=0)
    share = 1.0 / groups
    if every:
        # Not squared: the push between two neurons must not fade as they meet.
        apart = square > 0
        distance = ops.sqrt(ops.where(apart, square, 1.0))
        measure = ops.where(apart, distance, 0.0) * (share / n)
        weight = ops.where(apart, 1.0 / distance, 0.0) * (share / n)
    else:
        first = ops.argmin(ops.reshape(square, (groups, n)), axis=-1)
        index = ops.arange(n, dtype="int32")
        closest = index[None, :] == ops.cast(first, "int32")[:, None]
        closest = share * ops.cast(ops.reshape(closest, (-1,)), unit.dtype)
        measure, weight = closest * square, 2.0 * closest
    push = weight[:, None] * gap
    pull = ops.segment_sum(sign * push, partner, num_segments=groups * n) - push
    pull = ops.swapaxes(ops.reshape(pull, (*batch, n, d)), -1, -2)
    return -ops.sum(measure), gradient_from_pull(unit, reciprocal, pull, 1.0)


@functools.lru_cache(maxsize=256)
def _compiled_separation(shape: tuple[int, ...], dtype: str, half_space: bool, every: bool) -> Any:
    return compiled(lambda matrix: _value_and_gradient(matrix, half_space, every), (shape, dtype))


def separation(matrix: Any, half_space: bool, every: bool) -> Any:
    """Minus the smallest squared distance of two neurons, or the mean of each one's smallest.

    The latter is not squared. Groups of neurons are averaged. In half space a neuron is near to
    another if it is near to its mirror image; a single neuron is 2 away from its own, and has no
    distance in full space: 0.
    """
    if matrix.shape[-1] == 1:
        farthest = 2.0 if every else 4.0
        return ops.sum(0.0 * matrix) - (farthest if half_space else 0.0)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_separation(tuple(matrix.shape), dtype, half_space, every)
    return with_gradient(program, matrix, twice=False)
