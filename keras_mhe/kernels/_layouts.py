"""Axes and groups of neurons that depend on an equation, or on the units of a layer."""

import math
from numbers import Integral
from typing import Any

from keras import layers

from keras_mhe._typing import Shape

# Numbers of gates of cells that are not built yet.
_GATES = {layers.SimpleRNNCell: 1, layers.GRUCell: 3, layers.LSTMCell: 4}


def einsum_axes(equation: str, shape: Shape | None) -> tuple[tuple[int, ...], int | None]:
    """The axes that index neurons, and the number of groups.

    Axes of the output index neurons. An axis that the input has too separates groups.
    """
    operands, output = equation.replace(".", "").split("->")
    inputs, kernel = operands.split(",")
    shared = [axis for axis, name in enumerate(kernel) if name in output and name in inputs]
    own = [axis for axis, name in enumerate(kernel) if name in output and name not in inputs]
    axes = tuple(shared + own)
    if not shared:
        return axes, 1
    return axes, None if shape is None else math.prod(shape[axis] for axis in shared)


def _positive_integer(value: Any) -> int:
    """The value if it is a positive integer, and 0 for anything else in a custom layer."""
    if isinstance(value, Integral) and value is not True:
        return max(int(value), 0)
    return 0


def gate_count(layer: Any, shape: Shape | None) -> int | None:
    """The number of gates of a recurrent layer, which share its inputs.

    A kernel whose width is no multiple of the units, as in a cell of low rank, has no gates.
    """
    if shape is None:
        return next((count for cell, count in _GATES.items() if isinstance(layer, cell)), None)
    for name in ("units", "filters"):
        units = _positive_integer(getattr(layer, name, None))
        if units:
            gates, rest = divmod(int(shape[-1]), units)
            return gates if gates and not rest else 1
    return 1
