"""Which weights of a layer are kernels, and which of their axes index neurons."""

import math
from typing import Any, NamedTuple

import keras
from keras import layers

_LAST, _FIRST = (-1,), (0,)

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


class Kernel(NamedTuple):
    """A weight whose neurons have directions.

    Attributes:
        name: which of the layer's kernels it is.
        variable: the weight.
        neuron_axis: the axes that index neurons.
        groups: equal, contiguous groups of neurons that share inputs: only these compete.
    """

    name: str
    variable: keras.Variable
    neuron_axis: tuple[int, ...]
    groups: int


def _einsum_axes(equation: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Neurons are along the output's axes; those shared with the input keep them apart."""
    operands, output = equation.replace(".", "").split("->")
    inputs, kernel = operands.split(",")
    shared = [axis for axis, name in enumerate(kernel) if name in output and name in inputs]
    own = [axis for axis, name in enumerate(kernel) if name in output and name not in inputs]
    return tuple(shared + own), math.prod(shape[axis] for axis in shared)


def _parts(layer: Any) -> dict[str, Any] | None:
    """The layers in a layer that hold its kernels, by name; None where it holds them itself."""
    if isinstance(layer, layers.Bidirectional):
        return {"forward": layer.forward_layer, "backward": layer.backward_layer}
    if isinstance(layer, layers.Wrapper):
        return {"": layer.layer}
    if isinstance(layer, layers.RNN):
        return {"": layer.cell}
    if isinstance(layer, layers.StackedRNNCells):
        return {f"cell_{i}": cell for i, cell in enumerate(layer.cells)}
    if isinstance(layer, _ATTENTION):
        dense = [part for part in vars(layer).values() if isinstance(part, layers.EinsumDense)]
        return {part.name: part for part in dense}
    return None


def _own_kernels(layer: Any) -> list[Kernel]:
    kernel: Any = getattr(layer, "kernel", None)
    if isinstance(layer, _SEPARABLE):
        return [Kernel("pointwise_kernel", layer.pointwise_kernel, _LAST, 1)]
    if isinstance(layer, _DEPTHWISE):
        # Filters of different channels see different inputs: they do not compete.
        return [Kernel("kernel", kernel, (-2, -1), kernel.shape[-2])]
    if isinstance(layer, _TRANSPOSED):
        return [Kernel("kernel", kernel, (-2,), 1)]
    if isinstance(layer, _CONVOLUTIONS):
        return [Kernel("kernel", kernel, _LAST, layer.groups)]
    if isinstance(layer, layers.EinsumDense):
        return [Kernel("kernel", kernel, *_einsum_axes(layer.equation, tuple(kernel.shape)))]
    if hasattr(layer, "recurrent_kernel"):
        units = getattr(layer, "units", None) or getattr(layer, "filters", kernel.shape[-1])
        gates = kernel.shape[-1] // units
        recurrent = layer.recurrent_kernel
        return [
            Kernel("kernel", kernel, _LAST, gates),
            Kernel("recurrent_kernel", recurrent, _LAST, gates),
        ]
    if kernel is not None:
        return [Kernel("kernel", kernel, _LAST, 1)]
    if hasattr(layer, "embeddings"):
        return [Kernel("embeddings", layer.embeddings, _FIRST, 1)]
    raise ValueError(
        "The layer has neither a kernel nor embeddings whose neurons could be pushed apart (if it "
        f"has them only once it was called, call it first). Received: layer={layer}"
    )


def layers_within(layer: Any) -> list[Any]:
    """A layer and all those that hold its kernels."""
    parts = (_parts(layer) or {}).values()
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
    parts = _parts(layer)
    if parts is not None:
        return [
            kernel._replace(name=f"{name}/{kernel.name}" if name else kernel.name)
            for name, part in parts.items()
            for kernel in kernels_of(part)
        ]
    kernels = _own_kernels(layer)
    for kernel in kernels:
        variable = kernel.variable
        if not isinstance(variable, keras.Variable) or not keras.backend.is_float_dtype(
            variable.dtype
        ):
            raise ValueError(
                f"The {kernel.name} of the layer is not one floating-point variable: energies do "
                f"not apply to quantized layers or layers with LoRA. Received: layer={layer}"
            )
    return kernels
