"""Axes of neurons that the user names, for layers that do not tell them."""

from collections.abc import Mapping
from typing import TypeAlias

from keras_mhe._typing import NeuronAxis
from keras_mhe.energies._neurons import check_axes
from keras_mhe.kernels._model import ModelKernel, check_names

# The `axes` argument: the axis or axes of neurons by the name of a layer, or None.
NamedAxes: TypeAlias = Mapping[str, NeuronAxis] | None


def _checked(axes: NamedAxes) -> dict[str, tuple[int, ...]]:
    if axes is None:
        return {}
    valid = isinstance(axes, Mapping) and all(isinstance(name, str) for name in axes)
    try:
        # `check_axes` accepts None, which names no axis.
        if valid and None not in axes.values():
            return {name: check_axes(axis, None)[0] for name, axis in axes.items()}
    except (TypeError, ValueError):
        pass
    raise TypeError(
        "Invalid value for argument `axes`. Expected a dict of names of layers, each with an axis "
        f"or a list of different axes. Received: axes={axes!r}"
    )


def with_named_axes(kernels: list[ModelKernel], axes: NamedAxes) -> list[ModelKernel]:
    """The kernels, with the axes that the user names for their layers in place of their own.

    The neurons of such a kernel are one group. If several names select a kernel, the last one
    counts.

    Args:
        kernels: kernels of a model.
        axes: a dict with the axis or axes of neurons for the names of layers, as `where` names
            them; None changes nothing.

    Raises:
        TypeError, ValueError: if `axes` has the wrong type, or contains a name that no layer with a
            kernel has.
    """
    named = _checked(axes)
    check_names(named, kernels, "axes")
    result = []
    for found in kernels:
        own = [axis for name, axis in named.items() if name in found.labels]
        if own:
            kernel = found.kernel._replace(neuron_axis=own[-1], groups=1)
            found = found._replace(kernel=kernel, axes_named=True)
        result.append(found)
    return result
