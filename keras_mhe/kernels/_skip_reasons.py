"""Reasons why `regularize` and `energy_report` skip a kernel."""

import math

from keras_mhe._typing import NeuronAxis, Shape
from keras_mhe.energies._neurons import matrix_sizes
from keras_mhe.kernels._layer import DEPTHWISE, Kernel, is_plain

_SEPARATE_CHANNELS = "filters of different channels do not compete"


def untrained_reason(kernel: Kernel) -> str | None:
    """Why no regularizer can act on a kernel; None if one can."""
    variable = kernel.variable
    if kernel.quantization is not None:
        return f"quantized, {kernel.quantization}"
    if variable is not None and not is_plain(variable) and not kernel.factors:
        return "not one floating-point variable"
    return None


def unknown_axis_reason(kernel: Kernel) -> str:
    """Why a kernel whose layer does not tell the axis of neurons is skipped."""
    return (
        "the axis of its neurons is unknown; name it: "
        f'`axes={{"{kernel.layer.name}": 0}}` for rows, `axes={{"{kernel.layer.name}": -1}}` for '
        "columns"
    )


def skip_reason(kernel: Kernel, *, requested: bool, axes_named: bool = False) -> str | None:
    """Why a kernel gets no energy; None if it gets one.

    Args:
        kernel: the kernel.
        requested: whether the caller selected layers by `where`. Depthwise kernels are skipped
            unless they were selected.
        axes_named: whether the regularizer names the axes of neurons.
    """
    reason = untrained_reason(kernel)
    if reason is not None:
        return reason
    if not kernel.can_have_energy:
        return _SEPARATE_CHANNELS
    if isinstance(kernel.layer, DEPTHWISE) and not requested:
        return f"{_SEPARATE_CHANNELS}; `where` can include it"
    if kernel.neuron_axis is None and not axes_named:
        return unknown_axis_reason(kernel)
    if kernel.groups is None:
        return "its groups are unknown before it is built"
    return None


def unsupported_reason(weight: str) -> str:
    """Why a weight of this name, which is no kernel, is skipped."""
    return _SEPARATE_CHANNELS if weight == "depthwise_kernel" else "its neurons are unknown"


def misfit(shape: Shape, neuron_axis: NeuronAxis, groups: int | None) -> str | None:
    """Why a kernel of this shape has no such neurons; None if it has them.

    The axes and groups may be those of the layer, so no reason names an argument.
    """
    axes, rank = (-1,) if neuron_axis is None else neuron_axis, len(shape)
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    outside = [axis for axis in axes if not -rank <= axis < rank]
    if 0 in shape:
        return f"its kernel of shape {tuple(shape)} has no entries"
    if not axes:
        return "no axis of its kernel indexes neurons"
    if outside:
        return f"its kernel of shape {tuple(shape)} has no axis {outside[0]}"
    different = {axis % rank for axis in axes}
    if len(different) < len(axes):
        return f"two of the axes {axes} are the same axis of its kernel of shape {tuple(shape)}"
    if len(different) == rank:
        return "no axis of its kernel is left for the coordinates of its neurons"
    neurons = math.prod(shape[axis] for axis in axes)
    if neurons % (groups or 1):
        return f"its number of neurons, {neurons}, does not divide into {groups} equal groups"
    return None


def neuron_counts(
    shape: Shape, neuron_axis: NeuronAxis, groups: int | None
) -> tuple[int, int, int]:
    """Groups, coordinates and neurons of a kernel with at least one pair of neurons.

    Raises:
        ValueError: if there is no pair of neurons, if a neuron has one coordinate, or if
            `neuron_axis` or `groups` do not fit the shape. The message is a reason to skip the
            kernel.
    """
    reason = misfit(shape, neuron_axis, groups)
    if reason is not None:
        raise ValueError(reason)
    groups, dimension, neurons = matrix_sizes(shape, neuron_axis, groups)
    if neurons == 1:
        raise ValueError("one neuron, without a pair" + (" in its group" if groups > 1 else ""))
    if dimension == 1:
        raise ValueError("neurons of one coordinate have no directions")
    return groups, dimension, neurons
