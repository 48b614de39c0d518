"""Which weights of a layer are kernels, and which of their axes index neurons."""

import math
from typing import Any, NamedTuple

import keras
from keras import layers

from keras_mhe.lora import low_rank_factors

_LAST, _FIRST = (-1,), (0,)

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
# Gates of cells that are not built yet.
_GATES = {layers.SimpleRNNCell: 1, layers.GRUCell: 3, layers.LSTMCell: 4}
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


class Kernel(NamedTuple):
    """A weight whose neurons have directions.

    Attributes:
        name: which of the layer's kernels it is.
        variable: the weight; None before the layer is built.
        neuron_axis: the axes that index neurons.
        groups: equal, contiguous groups of neurons that share inputs: only these compete. None
            where the layer must be built to tell.
        layer: the layer that holds the weight itself.
        argument: the attribute of that layer which holds the weight's regularizer.
    """

    name: str
    variable: Any
    neuron_axis: tuple[int, ...]
    groups: int | None
    layer: Any
    argument: str

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the weight; None before the layer is built."""
        return None if self.variable is None else tuple(self.variable.shape)

    @property
    def factors(self) -> list[Any]:
        """The factors by which LoRA changes the weight; [] without LoRA."""
        return low_rank_factors(self.layer, self.name)


def _einsum_axes(equation: str, shape: Any) -> tuple[tuple[int, ...], int | None]:
    """Neurons are along the output's axes; those shared with the input keep them apart."""
    operands, output = equation.replace(".", "").split("->")
    inputs, kernel = operands.split(",")
    shared = [axis for axis, name in enumerate(kernel) if name in output and name in inputs]
    own = [axis for axis, name in enumerate(kernel) if name in output and name not in inputs]
    axes = tuple(shared + own)
    if not shared:
        return axes, 1
    return axes, None if shape is None else math.prod(shape[axis] for axis in shared)


def _gates(layer: Any, shape: Any) -> int | None:
    """How many gates of a recurrent layer share its inputs."""
    if shape is None:
        return next((count for cell, count in _GATES.items() if isinstance(layer, cell)), None)
    units = getattr(layer, "units", None) or getattr(layer, "filters", shape[-1])
    return shape[-1] // units


def parts_of(layer: Any) -> dict[str, Any] | None:
    """The layers in a layer that hold its kernels, by name; None where it holds them itself."""
    if isinstance(layer, layers.Bidirectional):
        return {"forward": layer.forward_layer, "backward": layer.backward_layer}
    if isinstance(layer, layers.Wrapper):
        return {"": layer.layer}
    if isinstance(layer, layers.RNN):
        return {"": layer.cell}
    if isinstance(layer, layers.StackedRNNCells):
        return {f"cell_{i}": cell for i, cell in enumerate(layer.cells)}
    if isinstance(layer, ATTENTION):
        dense = [part for part in vars(layer).values() if isinstance(part, layers.EinsumDense)]
        return {part.name: part for part in dense}
    return None


def _weight(layer: Any, name: str) -> Any:
    """The weight of this name, or None: other things may have that name, or raise."""
    try:
        value: Any = getattr(layer, name, None)
    except Exception:
        return None
    weight = isinstance(value, keras.Variable) or keras.ops.is_tensor(value)
    return value if weight and len(value.shape) > 1 else None


def own_kernels(layer: Any) -> list[Kernel]:
    """The kernels that a layer holds itself, or will hold once it is built; [] for none."""

    def kernel(
        name: str, axes: tuple[int, ...], groups: int | None, argument: str | None = None
    ) -> Kernel:
        argument = argument or f"{name}_regularizer"
        return Kernel(name, _weight(layer, name), axes, groups, layer, argument)

    def will_have(name: str) -> bool:
        return not layer.built and hasattr(layer, f"{name}_regularizer")

    shape = getattr(_weight(layer, "kernel"), "shape", None)
    if isinstance(layer, _SEPARABLE):
        return [kernel("pointwise_kernel", _LAST, 1, "pointwise_regularizer")]
    if isinstance(layer, DEPTHWISE):
        # Filters of different channels see different inputs: they do not compete.
        channels = None if shape is None else shape[-2]
        return [kernel("kernel", (-2, -1), channels, "depthwise_regularizer")]
    if isinstance(layer, _TRANSPOSED):
        return [kernel("kernel", (-2,), 1)]
    if isinstance(layer, _CONVOLUTIONS):
        return [kernel("kernel", _LAST, layer.groups)]
    if isinstance(layer, layers.EinsumDense):
        return [kernel("kernel", *_einsum_axes(layer.equation, shape))]
    if _weight(layer, "recurrent_kernel") is not None or will_have("recurrent"):
        gates = _gates(layer, shape)
        recurrent = kernel("recurrent_kernel", _LAST, gates, "recurrent_regularizer")
        return [kernel("kernel", _LAST, gates), recurrent]
    if shape is not None or will_have("kernel"):
        return [kernel("kernel", _LAST, 1)]
    if _weight(layer, "embeddings") is not None or will_have("embeddings"):
        return [kernel("embeddings", _FIRST, 1)]
    return []


def is_built_in(layer: Any) -> bool:
    """Whether a layer or model is of a class of Keras or of this package, not of a user's own."""
    return type(layer).__module__.partition(".")[0] in ("keras", "keras_mhe")


def is_plain(weight: Any) -> bool:
    """Whether a weight is one variable of real numbers: not quantized, not of several factors."""
    return isinstance(weight, keras.Variable) and keras.backend.is_float_dtype(weight.dtype)


def layers_within(layer: Any) -> list[Any]:
    """A layer and all those that hold its kernels."""
    parts = (parts_of(layer) or {}).values()
    return [layer, *(inner for part in parts for inner in layers_within(part))]


def kernels_of(layer: Any) -> list[Kernel]:
    """The kernels of a built layer, and how each holds its neurons.

    | layer | kernel | neurons |
    |---|---|---|
    | Dense, Conv, pointwise kernel of SeparableConv | (..., in, out) | last axis |
    | Conv with groups | (..., in / groups, out) | last axis, in groups |
    | Conv transposed | (..., out, in) | axis before the last |
    | EinsumDense, MultiHeadAttention, GroupQueryAttention | by equation | the output's axes |
    | Embedding | (vocabulary, dim) | first axis |
    | SimpleRNN, GRU, LSTM, ConvLSTM: kernel, recurrent kernel | (..., in, gates * units) | last \
axis, a group a gate |
    | DepthwiseConv | (..., in, multiplier) | last two axes, a group a channel |

    Wrappers, Bidirectional and RNN hold those of the layers inside. Any other layer counts
    its `kernel` as that of Dense, its `embeddings` as that of Embedding.

    Raises:
        ValueError: for a layer with neither, and for a kernel that is not one variable.
    """
    parts = parts_of(layer)
    if parts is not None:
        return [
            kernel._replace(name=f"{name}/{kernel.name}" if name else kernel.name)
            for name, part in parts.items()
            for kernel in kernels_of(part)
        ]
    kernels = own_kernels(layer)
    if not kernels or any(kernel.variable is None for kernel in kernels):
        raise ValueError(
            "The layer has neither a kernel nor embeddings whose neurons could be pushed apart (if "
            f"it has them only once it was called, call it first). Received: layer={layer}"
        )
    for kernel in kernels:
        if not is_plain(kernel.variable):
            raise ValueError(
                f"The {kernel.name} of the layer is not one floating-point variable: energies do "
                f"not apply to quantized layers or layers with LoRA. Received: layer={layer}"
            )
    return kernels
