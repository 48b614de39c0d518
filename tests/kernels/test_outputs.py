"""Output layers are the layers whose neurons are the outputs of the model."""

import keras
import pytest
from keras import layers, ops

from keras_mhe.kernels._outputs import output_layers

pytestmark = pytest.mark.once

HEAD = {"name": "head"}


def output_names(model):
    found, unknown = output_layers(model)
    assert unknown == ""
    return {layer.name for layer in found}


def model_with(*followers, head=None):
    """A model of a hidden layer, a head, and the given layers after it."""
    x = inputs = keras.Input((4, 4, 3))
    for layer in (layers.Conv2D(6, 1), head or layers.Conv2D(5, 1, **HEAD), *followers):
        x = layer(x)
    return keras.Model(inputs, x)


class Squashed(layers.Layer):
    """A layer without weights."""

    def call(self, inputs):
        return ops.tanh(inputs)


class Block(layers.Layer):
    """A layer with inner layers that are called in another order than they are created."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last, self.first = layers.Dense(3, name="last"), layers.Dense(4, name="first")

    def build(self, shape):
        self.first.build(shape)
        self.last.build((*shape[:-1], 4))

    def call(self, inputs):
        return ops.softmax(self.last(self.first(inputs)))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.hidden = Block(name="block"), layers.Dense(6, name="hidden")

    def call(self, inputs, training=None):
        return self.block(self.hidden(inputs))


class Opaque(Subclassed):
    def call(self, inputs, training=None):
        if keras.backend.is_keras_tensor(inputs):
            raise TypeError("symbolic tensors are not supported")
        return super().call(inputs)


@pytest.mark.parametrize(
    "followers",
    [
        [],
        [layers.Activation("softmax")],
        [layers.Flatten(), layers.Softmax()],
        [layers.Reshape((80, 1))],
        [layers.GlobalAveragePooling2D(), layers.Dropout(0.1)],
        [layers.UpSampling2D(), layers.Permute((3, 1, 2))],
        [layers.Lambda(lambda x: x / 2)],
        [Squashed()],
        [ops.nn.softmax, lambda x: x[..., :2] * 3.0],
        [keras.Sequential([layers.Flatten(), layers.Softmax()])],
    ],
    ids=lambda layers: "-".join(getattr(layer, "name", "operation") for layer in layers) or "none",
)
def test_activations_scaling_reshaping_and_global_pooling_may_follow_the_output_layer(followers):
    assert output_names(model_with(*followers)) == {"head"}


@pytest.mark.parametrize(
    "follower",
    [
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.UnitNormalization(),
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2),
        layers.PReLU(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_before_normalization_or_local_pooling_are_hidden(follower):
    assert output_names(model_with(follower, layers.ReLU())) == set()


def test_model_that_ends_in_a_sum_has_no_output_layer():
    x = inputs = keras.Input((6,))
    for _ in range(3):
        x = layers.Add()([x, layers.Dense(6)(x)])
    assert output_names(keras.Model(inputs, x)) == set()


@pytest.mark.parametrize(
    "head",
    [layers.LSTM(3), layers.Bidirectional(layers.GRU(3)), layers.RNN(layers.SimpleRNNCell(3))],
    ids=lambda layer: type(layer).__name__,
)
def test_recurrent_layers_are_no_output_layers(head):
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(5), head])
    assert output_names(model) == set()


@pytest.mark.parametrize(
    "head",
    [
        layers.Dense(3, **HEAD),
        layers.EinsumDense("abc,cd->abd", (None, 3), **HEAD),
        layers.Conv1D(3, 1, **HEAD),
        layers.Conv1DTranspose(3, 1, **HEAD),
        layers.SeparableConv1D(3, 1, **HEAD),
        layers.TimeDistributed(layers.Dense(3), **HEAD),
        layers.SpectralNormalization(layers.Dense(3), **HEAD),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_each_layer_kind_with_a_kernel_can_be_an_output_layer(head):
    assert output_names(keras.Sequential([keras.Input((6, 4)), layers.Dense(5), head])) == {"head"}


def test_each_output_has_its_output_layer():
    inputs = keras.Input((6,))
    x = layers.Dense(5)(inputs)
    outputs = {
        "a": layers.Softmax()(layers.Dense(3, name="one")(x)),
        "b": [layers.Dense(2, name="two")(x), x],
    }
    model = keras.Model(inputs, outputs)
    assert {"one", "two"} <= output_names(model)
    assert len(output_names(model)) == 3


def test_output_layer_of_a_nested_model_is_that_of_the_used_output():
    inner_in = keras.Input((6,))
    x = layers.Dense(5, name="inner")(inner_in)
    inner = keras.Model(inner_in, [layers.Dense(3, name="one")(x), layers.Dense(3, name="two")(x)])
    inputs = keras.Input((6,))
    assert output_names(keras.Model(inputs, layers.Softmax()(inner(inputs)[1]))) == {"two"}


def test_custom_layers_and_subclassed_models_are_traced():
    inputs = keras.Input((6,))
    functional = keras.Model(inputs, layers.Dropout(0.1)(Block()(inputs)))
    assert output_names(functional) == {"last"}
    model = Subclassed()
    model(ops.ones((2, 6)))
    assert output_names(model) == {"last"}


def test_tracing_changes_neither_weights_nor_nodes():
    class Counting(layers.Layer):
        def build(self, shape):
            self.inner = layers.Dense(3, name="inner")
            self.inner.build(shape)
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign_add(1.0)
            return self.inner(inputs)

    inputs = keras.Input((6,))
    layer = Counting()
    model = keras.Model(inputs, layer(inputs))
    calls, nodes = float(layer.calls), len(layer.inner._inbound_nodes)
    assert output_names(model) == {"inner"}
    assert float(layer.calls) == calls
    assert len(layer.inner._inbound_nodes) == nodes


def test_time_distributed_model_has_its_inner_output_layer():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head"), layers.Softmax()])
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(4), layers.TimeDistributed(inner)])
    assert output_names(model) == {"head"}


def test_inputs_of_a_subclassed_model_can_be_a_dict():
    class Named(Subclassed):
        def call(self, inputs, training=None):
            return super().call(inputs["a"] + inputs["b"])

    model = Named()
    model({"a": ops.ones((2, 6)), "b": ops.ones((2, 6))})
    assert output_names(model) == {"last"}


def test_model_that_cannot_be_traced_is_reported_as_unknown():
    model = Opaque()
    model(ops.ones((2, 6)))
    assert output_layers(model) == ([], "opaque")


def test_output_layer_of_an_unbuilt_sequential_model_is_found():
    inner = keras.Sequential([layers.Dense(4, name="head"), layers.Dropout(0.1)])
    assert output_names(keras.Sequential([layers.Dense(5), inner, layers.Softmax()])) == {"head"}
    features = [layers.Dense(5), layers.BatchNormalization(), layers.ReLU()]
    assert output_names(keras.Sequential(features)) == set()
