"""`layer_kernels` finds the kernels of a layer and the axes that index their neurons."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mhe.kernels import find_kernels, layer_kernels

pytestmark = pytest.mark.once

LAST, FIRST = (-1,), (0,)

EXPECTED_KERNELS = [
    (layers.Dense(5), (None, 3), {"kernel": (LAST, 1)}),
    (layers.Conv1D(6, 3, groups=2), (None, 9, 4), {"kernel": (LAST, 2)}),
    (layers.Conv2D(6, 3), (None, 9, 9, 4), {"kernel": (LAST, 1)}),
    (layers.Conv3D(6, 3), (None, 9, 9, 9, 2), {"kernel": (LAST, 1)}),
    (layers.Conv1DTranspose(6, 3), (None, 9, 4), {"kernel": ((-2,), 1)}),
    (layers.Conv2DTranspose(6, 3), (None, 9, 9, 4), {"kernel": ((-2,), 1)}),
    (layers.Conv3DTranspose(6, 3), (None, 9, 9, 9, 2), {"kernel": ((-2,), 1)}),
    (layers.SeparableConv2D(6, 3), (None, 9, 9, 4), {"pointwise_kernel": (LAST, 1)}),
    (
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        (None, 9, 9, 4),
        {"kernel": ((-2, -1), 4)},
    ),
    (layers.Embedding(20, 4), (None, 7), {"embeddings": (FIRST, 1)}),
    (layers.EinsumDense("ab,bcd->acd", (3, 4)), (None, 5), {"kernel": ((1, 2), 1)}),
    (layers.EinsumDense("...x,xy->...y", 4), (None, 7, 5), {"kernel": ((1,), 1)}),
    (layers.EinsumDense("abc,bcd->abd", (3, 4)), (None, 3, 5), {"kernel": ((0, 2), 3)}),
    (layers.SimpleRNN(5), (None, 7, 3), {"kernel": (LAST, 1), "recurrent_kernel": (LAST, 1)}),
    (layers.GRU(5), (None, 7, 3), {"kernel": (LAST, 3), "recurrent_kernel": (LAST, 3)}),
    (layers.LSTM(5), (None, 7, 3), {"kernel": (LAST, 4), "recurrent_kernel": (LAST, 4)}),
    (
        layers.ConvLSTM1D(5, 3),
        (None, 7, 9, 3),
        {"kernel": (LAST, 4), "recurrent_kernel": (LAST, 4)},
    ),
    (
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)]),
        (None, 7, 3),
        {
            "cell_0/kernel": (LAST, 4),
            "cell_0/recurrent_kernel": (LAST, 4),
            "cell_1/kernel": (LAST, 3),
            "cell_1/recurrent_kernel": (LAST, 3),
        },
    ),
    (
        layers.Bidirectional(layers.SimpleRNN(5)),
        (None, 7, 3),
        {
            "forward/kernel": (LAST, 1),
            "forward/recurrent_kernel": (LAST, 1),
            "backward/kernel": (LAST, 1),
            "backward/recurrent_kernel": (LAST, 1),
        },
    ),
    (layers.TimeDistributed(layers.Dense(5)), (None, 7, 3), {"kernel": (LAST, 1)}),
    (layers.SpectralNormalization(layers.Conv2D(6, 3)), (None, 9, 9, 4), {"kernel": (LAST, 1)}),
]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"), EXPECTED_KERNELS, ids=lambda x: type(x).__name__
)
def test_each_layer_has_the_expected_kernels_neuron_axes_and_groups(layer, shape, expected):
    layer.build(shape)
    found = {k.name: (k.neuron_axis, k.groups) for k in layer_kernels(layer)}
    assert found == expected
    for kernel in layer_kernels(layer):
        assert any(kernel.variable is weight for weight in layer.trainable_weights)


@pytest.mark.parametrize(
    "layer",
    [layers.MultiHeadAttention(2, 3), layers.GroupQueryAttention(3, 4, 2)],
    ids=["MultiHeadAttention", "GroupQueryAttention"],
)
def test_attention_has_one_kernel_for_each_projection(layer):
    layer.build((None, 7, 5), (None, 7, 6))
    found = {k.name: k for k in layer_kernels(layer)}
    assert set(found) == {f"{n}/kernel" for n in ("query", "key", "value", "attention_output")}
    assert found["query/kernel"].neuron_axis == (1, 2)
    assert found["attention_output/kernel"].neuron_axis == (2,)
    assert {k.groups for k in found.values()} == {1}


def test_shared_axes_of_an_einsum_equation_are_groups():
    """Neuron j at position b depends only on the inputs at position b."""
    layer = layers.EinsumDense("abc,bcd->abd", (3, 2))
    layer.build((None, 3, 5))
    [kernel] = layer_kernels(layer)
    x = np.zeros((1, 3, 5), "float32")
    x[0, 1] = 1
    outputs = keras.ops.convert_to_numpy(layer(x))[0]
    assert np.all(outputs[[0, 2]] == 0)
    assert np.all(outputs[1] != 0)
    assert kernel.groups == 3


def test_custom_layers_count_as_dense():
    class Custom(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    layer = Custom()
    layer.build((None, 3))
    [kernel] = layer_kernels(layer)
    assert (kernel.neuron_axis, kernel.groups) == (LAST, 1)


def test_axis_of_embeddings_is_known_in_embeddings_of_keras_only():
    class Codes(layers.Layer):
        def build(self, shape):
            self.embeddings = self.add_weight(shape=(4, shape[-1]), name="embeddings")

    class Words(layers.Embedding):
        pass

    for layer, axes in ((Codes(), None), (Words(4, 3), FIRST)):
        layer.build((None, 3))
        [kernel] = layer_kernels(layer)
        assert (kernel.name, kernel.neuron_axis, kernel.groups) == ("embeddings", axes, 1)


def test_depthwise_kernel_of_a_separable_convolution_is_a_kernel_without_energy():
    layer = layers.SeparableConv2D(6, 3)
    layer.build((None, 9, 9, 4))
    found = [found.kernel for found in find_kernels(layer)]
    assert {kernel.name: kernel.can_have_energy for kernel in found} == {
        "pointwise_kernel": True,
        "depthwise_kernel": False,
    }
    assert [kernel.name for kernel in layer_kernels(layer)] == ["pointwise_kernel"]


def test_layers_without_neurons_raise_a_clear_error():
    with pytest.raises(ValueError, match=r"neither a kernel nor embeddings.*Received: layer=<Drop"):
        layer_kernels(layers.Dropout(0.5))


def test_lora_and_quantized_layers_raise_a_clear_error():
    layer = layers.Dense(8)
    layer.build((None, 8))
    layer.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        layer_kernels(layer)
    quantized = layers.Dense(8)
    quantized.build((None, 8))
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="quantized"):
        layer_kernels(quantized)


class _Cell(layers.Layer):
    """A cell of the user, whose kernels may have any width."""

    def __init__(self, kernel, recurrent_kernel, units):
        super().__init__()
        self.shapes, self.units = (kernel, recurrent_kernel), units
        self.build()

    def build(self, shape=None):
        if not self.built:
            self.kernel, self.recurrent_kernel = (self.add_weight(shape=s) for s in self.shapes)
        self.built = True


@pytest.mark.parametrize(
    ("kernel", "recurrent_kernel", "units", "expected"),
    [
        # The width of a kernel of low rank is no multiple of the units.
        ((4, 3), (8, 3), 8, {"kernel": 1, "recurrent_kernel": 1}),
        ((4, 32), (8, 3), 8, {"kernel": 4, "recurrent_kernel": 1}),
        ((4, 3), (8, 32), 8, {"kernel": 1, "recurrent_kernel": 4}),
        ((4, 8), (8, 8), 3, {"kernel": 1, "recurrent_kernel": 1}),
        # The attribute means something else.
        ((4, 8), (8, 8), [2, 4], {"kernel": 1, "recurrent_kernel": 1}),
        ((4, 8), (8, 8), "2", {"kernel": 1, "recurrent_kernel": 1}),
        ((4, 8), (8, 8), True, {"kernel": 1, "recurrent_kernel": 1}),
        ((4, 8), (8, 8), -2, {"kernel": 1, "recurrent_kernel": 1}),
        ((4, 8), (8, 8), np.int64(2), {"kernel": 4, "recurrent_kernel": 4}),
        # A kernel of one axis has no neurons.
        ((8,), (8, 8), 2, {"recurrent_kernel": 4}),
        ((4, 8), (8,), 2, {"kernel": 1}),
    ],
)
def test_gates_are_counted_for_each_kernel_if_its_width_allows(
    kernel, recurrent_kernel, units, expected
):
    found = layer_kernels(_Cell(kernel, recurrent_kernel, units))
    assert {k.name: k.groups for k in found} == expected


def test_einsum_kernel_of_one_axis_has_no_neurons():
    layer = layers.EinsumDense("ab,b->a", ())
    layer.build((None, 5))
    with pytest.raises(ValueError, match="neither a kernel nor embeddings"):
        layer_kernels(layer)
