"""Why neurons of a kernel cannot meet, or should not."""

from collections.abc import Sequence

from keras_mhe.axes import neurons_of_shape
from keras_mhe.kernels import DEPTHWISE, Kernel, is_plain

_APART = "filters of different channels do not compete"


def why_apart(weight: str) -> str:
    """Why the slices of a weight of this name, which is no kernel, are left alone."""
    return _APART if weight == "depthwise_kernel" else "its neurons are not known"


def obstacle(kernel: Kernel, *, asked: bool) -> str | None:
    """Why a kernel cannot have an energy, or should not unless its layer was asked for."""
    layer, variable = kernel.layer, kernel.variable
    if getattr(layer, "quantization_mode", None) is not None:
        return f"quantized, {layer.quantization_mode}"
    if variable is not None and not is_plain(variable) and not kernel.factors:
        return "not one floating-point variable"
    if isinstance(layer, DEPTHWISE) and not asked:
        return f"{_APART}; `where` can ask for it"
    if kernel.groups is None:
        return "its groups are not known before it is built"
    return None


def extents_of(
    shape: tuple[int, ...], neuron_axis: int | Sequence[int] | None, groups: int | None
) -> tuple[int, int, int]:
    """Groups, coordinates and neurons of a kernel in which neurons meet.

    Raises:
        ValueError: where none do, and as `neurons_of_shape` does.
    """
    groups, dimension, neurons = neurons_of_shape(shape, neuron_axis, groups)
    if neurons == 1:
        raise ValueError("one neuron, no other to meet" + (" in its group" if groups > 1 else ""))
    if dimension == 1:
        raise ValueError("neurons of one coordinate have no directions")
    return groups, dimension, neurons
