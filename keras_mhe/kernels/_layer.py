"""The kernels of one layer: which weights have neurons, and which axes index them."""

from typing import Any, NamedTuple

import keras
from keras import layers

from keras_mhe._keras_internals import low_rank_factors, nested_layers
from keras_mhe._typing import Shape, Tensor
from keras_mhe.kernels._layouts import einsum_axes, gate_count

_LAST, _FIRST = (-1,), (0,)

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


class Kernel(NamedTuple):
    """A weight whose neurons have directions.

    Attributes:
        name: name of the weight within its layer.
        variable: the weight; None before the layer is built.
        neuron_axis: the axes that index neurons. None if they are unknown: then the user must name
            them.
        groups: number of equal, contiguous groups of neurons that share inputs. Only neurons of
            one group compete. None if it is unknown before the layer is built.
        layer: the layer that holds the weight itself.
        argument: the attribute of that layer with the weight's regularizer.
    """

    name: str
    variable: Tensor
    neuron_axis: tuple[int, ...] | None
    groups: int | None
    layer: keras.layers.Layer
    argument: str

    @property
    def shape(self) -> Shape | None:
        """The shape of the weight; None before the layer is built."""
        return None if self.variable is None else tuple(self.variable.shape)

    @property
    def attribute(self) -> str:
        """The attribute of `layer` with the weight. With LoRA, it is the effective kernel."""
        return self.name.rpartition("/")[2]

    @property
    def can_have_energy(self) -> bool:
        """Whether neurons of the weight compete: not the depthwise filters of SeparableConv."""
        return self.attribute != "depthwise_kernel"

    @property
    def factors(self) -> list[keras.Variable]:
        """The factors by which LoRA changes the weight; [] without LoRA."""
        return low_rank_factors(self.layer)

    @property
    def quantization(self) -> str | None:
        """How the weight is quantized, or None. In float8, the weight itself is not quantized."""
        mode: str | None = getattr(self.layer, "quantization_mode", None)
        return None if mode == "float8" else mode

    @property
    def trained_weights(self) -> list[keras.Variable]:
        """The weights that training changes: the kernel itself, or the factors of LoRA.

        They are looked up at each call, because LoRA and quantization replace weights. A quantized
        kernel has none, also with LoRA: its effective kernel is not known.
        """
        if self.quantization is not None:
            return []
        if self.factors:
            return self.factors
        weight = _weight(self.layer, self.attribute)
        return [weight] if is_plain(weight) else []


def parts_of(layer: Any) -> dict[str, Any] | None:
    """The layers within a layer that hold its kernels, by name; None if it holds them itself."""
    if isinstance(layer, layers.Bidirectional):
        return {"forward": layer.forward_layer, "backward": layer.backward_layer}
    if isinstance(layer, layers.Wrapper):
        return {"": layer.layer}
    if isinstance(layer, layers.RNN):
        return {"": layer.cell}
    if isinstance(layer, layers.StackedRNNCells):
        return {f"cell_{i}": cell for i, cell in enumerate(layer.cells)}
    if isinstance(layer, ATTENTION):
        parts = nested_layers(layer, direct=True)
        return {part.name: part for part in parts if isinstance(part, layers.EinsumDense)}
    return None


def _weight(layer: Any, name: str) -> Any:
    """The weight of this name, or None: the attribute may be something else, or may raise."""
    try:
        value: Any = getattr(layer, name, None)
    except Exception:
        return None
    weight = isinstance(value, keras.Variable) or keras.ops.is_tensor(value)
    return value if weight and len(value.shape) > 1 else None


def _expected_kernels(layer: Any) -> list[Kernel]:
    """The kernels that layers of this kind have, or will have after they are built."""

    def kernel(
        name: str, axes: tuple[int, ...] | None, groups: int | None, argument: str | None = None
    ) -> Kernel:
        argument = argument or f"{name}_regularizer"
        return Kernel(name, _weight(layer, name), axes, groups, layer, argument)

    def will_have(name: str) -> bool:
        return not layer.built and hasattr(layer, f"{name}_regularizer")

    shape = getattr(_weight(layer, "kernel"), "shape", None)
    if isinstance(layer, _SEPARABLE):
        return [
            kernel("pointwise_kernel", _LAST, 1, "pointwise_regularizer"),
            kernel("depthwise_kernel", (-2, -1), None, "depthwise_regularizer"),
        ]
    if isinstance(layer, DEPTHWISE):
        # Filters of different channels have different inputs, so they do not compete.
        channels = None if shape is None else shape[-2]
        return [kernel("kernel", (-2, -1), channels, "depthwise_regularizer")]
    if isinstance(layer, _TRANSPOSED):
        return [kernel("kernel", (-2,), 1)]
    if isinstance(layer, _CONVOLUTIONS):
        return [kernel("kernel", _LAST, layer.groups)]
    if isinstance(layer, layers.EinsumDense):
        return [kernel("kernel", *einsum_axes(layer.equation, shape))]
    if _weight(layer, "recurrent_kernel") is not None or will_have("recurrent"):
        shapes = [shape, getattr(_weight(layer, "recurrent_kernel"), "shape", None)]
        gates, recurrent_gates = (gate_count(layer, own) for own in shapes)
        recurrent = kernel("recurrent_kernel", _LAST, recurrent_gates, "recurrent_regularizer")
        return [kernel("kernel", _LAST, gates), recurrent]
    if shape is not None or will_have("kernel"):
        return [kernel("kernel", _LAST, 1)]
    if _weight(layer, "embeddings") is not None or will_have("embeddings"):
        # Those of a vector quantizer are often columns.
        known = isinstance(layer, layers.Embedding)
        return [kernel("embeddings", _FIRST if known else None, 1)]
    return []


def own_kernels(layer: Any) -> list[Kernel]:
    """The kernels that a layer itself holds, or will hold after it is built; [] for none."""
    return [
        kernel
        for kernel in _expected_kernels(layer)
        # The kernel of a built EinsumDense or cell may have one axis, and so no neurons.
        if kernel.variable is not None or kernel.quantization is not None or not layer.built
    ]


def is_built_in(layer: Any) -> bool:
    """Whether the class of a layer or model is from Keras or from this package."""
    return type(layer).__module__.partition(".")[0] in ("keras", "keras_mhe")


def is_plain(weight: Any) -> bool:
    """Whether a weight is one floating-point variable: not quantized, not a product of factors."""
    return isinstance(weight, keras.Variable) and keras.backend.is_float_dtype(weight.dtype)


def layers_within(layer: Any) -> list[Any]:
    """A layer and the layers within it that hold its kernels."""
    parts = (parts_of(layer) or {}).values()
    return [layer, *(inner for part in parts for inner in layers_within(part))]


def _no_kernel(layer: keras.layers.Layer) -> ValueError:
    inside = [part for part in nested_layers(layer) if parts_of(part) or own_kernels(part)]
    if isinstance(layer, keras.Model):
        reason = "Models are not wrapped. To regularize all their kernels, call"
    elif inside:
        reason = "Its kernels are in layers inside it. Wrap those, or regularize the whole model:"
    else:
        return ValueError(
            "The layer has neither a kernel nor embeddings. If it creates them when it is called, "
            f"call it first. Received: layer={layer}"
        )
    return ValueError(
        f"The layer has neither a kernel nor embeddings. {reason} `keras_mhe.regularize(model)`. "
        f"Received: layer={layer}"
    )


def kernels_of(layer: keras.layers.Layer) -> list[Kernel]:
    """As `layer_kernels`, but accepts quantized layers and layers with LoRA."""
    parts = parts_of(layer)
    if parts is not None:
        return [
            kernel._replace(name=f"{name}/{kernel.name}" if name else kernel.name)
            for name, part in parts.items()
            for kernel in kernels_of(part)
        ]
    kernels = [kernel for kernel in own_kernels(layer) if kernel.can_have_energy]
    if not kernels or any(kernel.variable is None for kernel in kernels):
        raise _no_kernel(layer)
    return kernels


def layer_kernels(layer: keras.layers.Layer) -> list[Kernel]:
    """The kernels of a built layer, and the axes of their neurons.

    | layer | kernel | neurons |
    |---|---|---|
    | Dense, Conv, pointwise kernel of SeparableConv | (..., in, out) | last axis |
    | Conv with groups | (..., in / groups, out) | last axis, in groups |
    | Conv transposed | (..., out, in) | axis before the last |
    | EinsumDense, MultiHeadAttention, GroupQueryAttention | by equation | the output's axes |
    | Embedding | (vocabulary, dim) | first axis |
    | SimpleRNN, GRU, LSTM, ConvLSTM: kernel, recurrent kernel | (..., in, gates * units) | last \
axis, one group for each gate |
    | DepthwiseConv | (..., in, multiplier) | last two axes, one group for each channel |

    Wrappers, Bidirectional and RNN have the kernels of their inner layers. In any other layer,
    `kernel` is treated as in Dense. The axis of neurons in other `embeddings` is unknown, None:
    those of a vector quantizer may be rows or columns.

    Args:
        layer: a built layer.

    Returns:
        A list of `Kernel`, at least one.

    Raises:
        ValueError: if the layer has neither a kernel nor embeddings, or if a kernel is not one
            floating-point variable.

    Examples:
        >>> import keras
        >>> from keras_mhe.kernels import layer_kernels
        >>> layer = keras.layers.Conv2DTranspose(8, 3)
        >>> layer.build((None, 16, 16, 4))
        >>> [(kernel.shape, kernel.neuron_axis) for kernel in layer_kernels(layer)]
        [((3, 3, 8, 4), (-2,))]
    """
    kernels = kernels_of(layer)
    for kernel in kernels:
        if not is_plain(kernel.variable):
            raise ValueError(
                f"The {kernel.name} of the layer is not one floating-point variable: the layer is "
                f"quantized or has LoRA. Received: layer={layer}"
            )
    return kernels
