"""Reads kernels as matrices with one neuron in each column, and projects neurons to the sphere."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._arguments import as_integer, check_integer
from keras_mhe._backend import at_least, at_most, has_compiler, on_cpu
from keras_mhe._typing import NeuronAxis, Shape, Tensor

# In gradients, a norm counts as at least this fraction of the root mean square of all norms.
_NORM_FLOOR = 0.01


def check_axes(neuron_axis: NeuronAxis, groups: int | None) -> tuple[tuple[int, ...], int]:
    """Returns the neuron axes as a tuple and the number of groups; `None` means -1 and 1."""
    named: Any = -1 if neuron_axis is None else neuron_axis
    try:
        axes = tuple(map(as_integer, named if isinstance(named, (list, tuple, range)) else [named]))
    except TypeError:
        raise TypeError(
            "Invalid value for argument `neuron_axis`. Expected an integer, a list or tuple of "
            f"integers or None. Received: neuron_axis={neuron_axis!r}"
        ) from None
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(
            "Invalid value for argument `neuron_axis`. Expected at least one axis, each of them "
            f"once. Received: neuron_axis={neuron_axis!r}"
        )
    count = check_integer(
        1 if groups is None else groups, "groups", least=1, expected="a positive integer or None"
    )
    return axes, count


def _positive_axes(axes: tuple[int, ...], shape: Shape) -> list[int]:
    """Returns the neuron axes counted from the front; raises if one does not exist."""
    rank = len(shape)
    if rank < 2:
        raise ValueError(
            "A kernel needs at least two axes, one for coordinates and one for neurons. "
            f"Received: kernel.shape={shape}"
        )
    if None in shape or 0 in shape:
        raise ValueError(
            "A kernel needs a known, positive size along every axis. "
            f"Received: kernel.shape={shape}"
        )
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"Argument `neuron_axis` names an axis that the kernel does not have; its {rank} axes "
            f"are {-rank} to {rank - 1}. Received: neuron_axis={axes}, kernel.shape={shape}"
        )
    positive = [axis % rank for axis in axes]
    if len(set(positive)) < len(positive) or len(positive) == rank:
        raise ValueError(
            "Argument `neuron_axis` must name different axes and leave one for coordinates. "
            f"Received: neuron_axis={axes}, kernel.shape={shape}"
        )
    return positive


def matrix_sizes(shape: Shape, neuron_axis: NeuronAxis, groups: int | None) -> tuple[int, int, int]:
    """Returns the sizes of `neuron_matrix`: groups, coordinates, neurons in each group.

    Raises:
        ValueError: if a kernel of this shape does not have the axes or does not divide into equal
            groups.
    """
    axes, count = check_axes(neuron_axis, groups)
    size = math.prod(shape[axis] for axis in _positive_axes(axes, shape))
    if size % count:
        raise ValueError(
            f"Argument `groups` must divide the number of neurons, {size}. "
            f"Received: groups={count}, neuron_axis={axes}, kernel.shape={shape}"
        )
    return count, math.prod(shape) // size, size // count


def _axis_order(shape: Shape, neuron_axis: NeuronAxis) -> list[int]:
    """The axes of a kernel: first the axes of coordinates, then the axes of neurons."""
    neurons = _positive_axes(check_axes(neuron_axis, None)[0], shape)
    return [axis for axis in range(len(shape)) if axis not in neurons] + neurons


def neuron_matrix(
    kernel: Tensor, neuron_axis: NeuronAxis = None, groups: int | None = None
) -> Tensor:
    """Reads a kernel as a matrix with one neuron in each column, in float32 or wider.

    Args:
        kernel: floating-point tensor or variable with at least two axes.
        neuron_axis: the axis or axes that index neurons, in the order in which neurons are
            counted. The other axes are flattened to coordinates. `None` means the last axis.
        groups: number of equal, contiguous groups of neurons; `None` means 1.

    Returns:
        A tensor of shape `(d, N)`, or `(groups, d, N / groups)` for more than one group.
    """
    kernel = ops.convert_to_tensor(kernel)
    dtype = keras.backend.standardize_dtype(kernel.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise TypeError(f"A kernel must be floating point. Received: kernel.dtype={dtype}")
    shape = tuple(kernel.shape)
    count, dimension, size = matrix_sizes(shape, neuron_axis, groups)
    order = _axis_order(shape, neuron_axis)
    if dtype != "float64":
        kernel = ops.cast(kernel, "float32")
    if order != list(range(len(shape))):
        kernel = ops.transpose(kernel, order)
    if count == 1:
        return ops.reshape(kernel, (dimension, size))
    return ops.transpose(ops.reshape(kernel, (dimension, count, size)), (1, 0, 2))


def neuron_array(
    kernel: Tensor, neuron_axis: NeuronAxis = None, groups: int | None = None
) -> np.ndarray:
    """`neuron_matrix` in NumPy: a float64 array, always of shape `(groups, d, N / groups)`."""
    array = np.asarray(ops.convert_to_numpy(kernel), "float64")
    count, dimension, size = matrix_sizes(array.shape, neuron_axis, groups)
    array = np.transpose(array, _axis_order(array.shape, neuron_axis))
    return np.swapaxes(array.reshape(dimension, count, size), 0, 1)


def _limits(tensor: Tensor) -> tuple[float, float]:
    """The least and the largest number by which neurons are divided."""
    limits = np.finfo(keras.backend.standardize_dtype(tensor.dtype))
    # XLA multiplies by the reciprocal of a scale and flushes subnormal numbers to zero.
    return float(limits.tiny), float(limits.max) / 8


def scaled_neurons(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Divides each neuron by its largest entry, so that squares neither overflow nor underflow.

    Returns:
        The scaled neurons, and their largest entries, of shape `(..., 1, N)`.
    """
    tiny, huge = _limits(matrix)
    largest = at_most(ops.max(ops.abs(matrix), axis=-2, keepdims=True), huge)
    return matrix / ops.where(largest < tiny, 1.0, largest), largest


def neuron_norms(square: Tensor, largest: Tensor, n: Any = None) -> tuple[Tensor, Tensor]:
    """Norms of the scaled neurons, and the reciprocal norms that scale gradients.

    Both are finite for every norm. For a neuron of norm zero, they are one and zero.

    Args:
        square: squared norms of the scaled neurons, of shape `(..., 1, N)`.
        largest: as `scaled_neurons` returns it.
        n: as in `unit_neurons`.
    """
    tiny, _ = _limits(square)
    # Test the sum, which propagates NaN; XLA's max of an all-NaN column is -inf.
    zero = square == 0.0
    norm = ops.sqrt(ops.where(zero, 1.0, square))
    # Without a floor under the norms, one step would throw a short neuron far away.
    top = at_least(ops.max(largest), tiny)
    true_norm = ops.where(zero, 0.0, norm) * (largest / top)
    # Not `ops.mean`, which rounds float64 to float32 on JAX.
    count = math.prod(norm.shape) if n is None else ops.cast(ops.maximum(n, 1), norm.dtype)
    mean_square = ops.sum(ops.square(true_norm) / count)
    floor = _NORM_FLOOR * ops.sqrt(at_least(mean_square, tiny))
    reciprocal = 1.0 / at_least(at_least(true_norm, floor) * top, tiny)
    return norm, ops.where(zero, 0.0, reciprocal)


def _corrected(unit: Tensor) -> Tensor:
    """Corrects the lengths of unit neurons in which roots and quotients were approximated.

    On a GPU, XLA may approximate both. If all lengths are too large by a last digit, the energy of
    2,000 neurons of three coordinates changes by 5e-5. Sums and products are rounded correctly.
    """
    return unit * (1.5 - 0.5 * ops.sum(ops.square(unit), axis=-2, keepdims=True))


def unit_neurons(matrix: Tensor, n: Any = None) -> tuple[Tensor, Tensor]:
    """Projects neurons onto the unit sphere.

    Args:
        matrix: tensor of shape `(..., d, N)`.
        n: number of neurons, a scalar tensor, if further columns are zero and no neurons.

    Returns:
        The unit neurons, and reciprocal norms of shape `(..., 1, N)`, which scale their gradients.
        Both are finite for every norm, and zero for a neuron of norm zero.
    """
    scaled, largest = scaled_neurons(matrix)
    square = ops.sum(ops.square(scaled), axis=-2, keepdims=True)
    norm, reciprocal = neuron_norms(square, largest, n)
    unit = scaled / norm
    return (_corrected(unit) if has_compiler() and not on_cpu() else unit), reciprocal


def tangent_part(unit: Tensor, direction_gradient: Tensor) -> Tensor:
    """The gradient with respect to unit neurons without its radial part.

    The radial part does not change the direction of a neuron.
    """
    radial = ops.sum(unit * direction_gradient, axis=-2, keepdims=True)
    return direction_gradient - unit * radial


def tangent_gradient(
    unit: Tensor, reciprocal: Tensor, direction_gradient: Tensor, weight: Any
) -> Tensor:
    """Converts the gradient with respect to unit neurons to the gradient with respect to neurons.

    It scales the tangent part by `weight` and by `reciprocal`, which `unit_neurons` returns.
    """
    return tangent_part(unit, direction_gradient) * (reciprocal * weight)
