"""Which axes of a kernel index its neurons, and the kernel read as a matrix of them."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def check_integer(value: Any, name: str, least: int, what: str) -> int:
    """Returns an integer of at least `least`, or says that the argument expects `what`."""
    message = f"Invalid value for argument `{name}`. Expected {what}. Received: {name}={value!r}"
    try:
        number = _integer(value)
    except TypeError:
        raise TypeError(message) from None
    if number < least:
        raise ValueError(message)
    return number


def check_axes(
    neuron_axis: int | Sequence[int] | None, groups: int | None
) -> tuple[tuple[int, ...], int]:
    """Returns the neuron axes as a tuple and the number of groups; `None` is -1 and 1."""
    named: Any = -1 if neuron_axis is None else neuron_axis
    try:
        axes = tuple(map(_integer, named if isinstance(named, (list, tuple, range)) else [named]))
    except TypeError:
        raise TypeError(
            "Invalid value for argument `neuron_axis`. Expected an integer, a list or tuple of "
            f"integers or None. Received: neuron_axis={neuron_axis!r}"
        ) from None
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(
            "Invalid value for argument `neuron_axis`. Expected at least one axis and none "
            f"twice. Received: neuron_axis={neuron_axis!r}"
        )
    count = check_integer(
        1 if groups is None else groups, "groups", least=1, what="a positive integer or None"
    )
    return axes, count


def _positions(axes: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """The neuron axes counted from the front, or why this kernel does not have them."""
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
            f"Argument `neuron_axis` names an axis that the kernel lacks; its {rank} axes are "
            f"{-rank} to {rank - 1}. Received: neuron_axis={axes}, kernel.shape={shape}"
        )
    positions = [axis % rank for axis in axes]
    if len(set(positions)) < len(positions) or len(positions) == rank:
        raise ValueError(
            "Argument `neuron_axis` must name different axes and leave one for coordinates. "
            f"Received: neuron_axis={axes}, kernel.shape={shape}"
        )
    return positions


def neurons_of_shape(
    shape: tuple[int, ...], neuron_axis: int | Sequence[int] | None, groups: int | None
) -> tuple[int, int, int]:
    """What `neuron_matrix` makes of a kernel of this shape: groups, coordinates, neurons in each.

    Raises:
        ValueError: for a kernel that does not have these axes, or not so many equal groups.
    """
    axes, count = check_axes(neuron_axis, groups)
    size = math.prod(shape[axis] for axis in _positions(axes, shape))
    if size % count:
        raise ValueError(
            f"Argument `groups` must divide the number of neurons, {size}. "
            f"Received: groups={count}, neuron_axis={axes}, kernel.shape={shape}"
        )
    return count, math.prod(shape) // size, size // count


def _order(shape: tuple[int, ...], neuron_axis: int | Sequence[int] | None) -> list[int]:
    """The axes of a kernel, those of coordinates first."""
    neurons = _positions(check_axes(neuron_axis, None)[0], shape)
    return [axis for axis in range(len(shape)) if axis not in neurons] + neurons


def neuron_matrix(
    kernel: Any, neuron_axis: int | Sequence[int] | None = None, groups: int | None = None
) -> Any:
    """Reads a kernel as a matrix with one neuron a column, in float32 or wider.

    Args:
        kernel: floating-point tensor or variable with at least two axes.
        neuron_axis: the axis or axes that index neurons, in the order in which neurons are
            counted; the others, flattened, are coordinates. `None` is the last axis.
        groups: number of equal, contiguous groups of neurons; `None` is 1.

    Returns:
        A tensor of shape `(d, N)`, or `(groups, d, N / groups)` for more than one group.
    """
    kernel = keras.ops.convert_to_tensor(kernel)
    dtype = keras.backend.standardize_dtype(kernel.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise TypeError(f"A kernel must be floating point. Received: kernel.dtype={dtype}")
    shape = tuple(kernel.shape)
    count, dimension, size = neurons_of_shape(shape, neuron_axis, groups)
    order = _order(shape, neuron_axis)
    if dtype != "float64":
        kernel = keras.ops.cast(kernel, "float32")
    if order != list(range(len(shape))):
        kernel = keras.ops.transpose(kernel, order)
    if count == 1:
        return keras.ops.reshape(kernel, (dimension, size))
    return keras.ops.transpose(keras.ops.reshape(kernel, (dimension, count, size)), (1, 0, 2))


def neuron_array(
    kernel: Any, neuron_axis: int | Sequence[int] | None = None, groups: int | None = None
) -> np.ndarray:
    """The same on the host and in float64, always of shape `(groups, d, N / groups)`."""
    array = np.asarray(keras.ops.convert_to_numpy(kernel), "float64")
    count, dimension, size = neurons_of_shape(array.shape, neuron_axis, groups)
    array = np.transpose(array, _order(array.shape, neuron_axis))
    return np.swapaxes(array.reshape(dimension, count, size), 0, 1)
