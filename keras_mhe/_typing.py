"""Names of types that the backends do not declare."""

from collections.abc import Sequence
from typing import Any, TypeAlias

# A tensor of the backend in use, a `keras.Variable` or a NumPy array. Backends share no base class.
Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
# What a regularizer learns, by name.
State: TypeAlias = dict[str, Tensor]
# The `neuron_axis` argument: one axis, several, or None for the default.
NeuronAxis: TypeAlias = int | Sequence[int] | None
