"""Output layers are those whose neurons become the model's outputs, and no others."""

import keras
import pytest
from keras import layers, ops

from keras_mhe.outputs import output_layers

pytestmark = pytest.mark.once

HEAD = {"name": "head"}


def names(model):
    found, unknown = output_layers(model)
    assert unknown == ""
    return {layer.name for layer in found}


def after(*followers, head=None):
    """A model with a hidden layer, a head, and what follows it."""
    x = inputs = keras.Input((4, 4, 3))
    for layer in (layers.Conv2D(6, 1), head or layers.Conv2D(5, 1, **HEAD), *followers):
        x = layer(x)
    return keras.Model(inputs, x)


class Squashed(layers.Layer):
    """No weights, one input."""

    def call(self, inputs):
        return ops.tanh(inputs)


class Block(layers.Layer):
    """Layers of its own, called in an order that only its code knows."""

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
            raise TypeError("no tensor without values here")
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
def test_what_squashes_scales_or_reshapes_is_looked_through(followers):
    assert names(after(*followers)) == {"head"}


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
def test_behind_normalization_and_local_pooling_are_features(follower):
    assert names(after(follower, layers.ReLU())) == set()


def test_a_sum_has_no_output_layer_as_residual_networks_end_in_one():
    x = inputs = keras.Input((6,))
    for _ in range(3):
        x = layers.Add()([x, layers.Dense(6)(x)])
    assert names(keras.Model(inputs, x)) == set()


@pytest.mark.parametrize(
    "head",
    [layers.LSTM(3), layers.Bidirectional(layers.GRU(3)), layers.RNN(layers.SimpleRNNCell(3))],
    ids=lambda layer: type(layer).__name__,
)
def test_recurrent_layers_put_out_states_not_scores(head):
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(5), head])
    assert names(model) == set()


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
def test_every_layer_with_a_kernel_may_be_one(head):
    assert names(keras.Sequential([keras.Input((6, 4)), layers.Dense(5), head])) == {"head"}


def test_every_output_has_its_own():
    inputs = keras.Input((6,))
    x = layers.Dense(5)(inputs)
    outputs = {
        "a": layers.Softmax()(layers.Dense(3, name="one")(x)),
        "b": [layers.Dense(2, name="two")(x), x],
    }
    model = keras.Model(inputs, outputs)
    assert {"one", "two"} <= names(model)
    assert len(names(model)) == 3


def test_in_a_nested_model_it_is_the_one_behind_the_output_taken():
    inner_in = keras.Input((6,))
    x = layers.Dense(5, name="inner")(inner_in)
    inner = keras.Model(inner_in, [layers.Dense(3, name="one")(x), layers.Dense(3, name="two")(x)])
    inputs = keras.Input((6,))
    assert names(keras.Model(inputs, layers.Softmax()(inner(inputs)[1]))) == {"two"}


def test_layers_and_models_without_a_graph_are_traced():
    inputs = keras.Input((6,))
    outside = keras.Model(inputs, layers.Dropout(0.1)(Block()(inputs)))
    assert names(outside) == {"last"}
    model = Subclassed()
    model(ops.ones((2, 6)))
    assert names(model) == {"last"}


def test_tracing_leaves_no_trace():
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
    assert names(model) == {"inner"}
    assert float(layer.calls) == calls
    assert len(layer.inner._inbound_nodes) == nodes


def test_a_model_over_time_is_looked_into():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head"), layers.Softmax()])
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(4), layers.TimeDistributed(inner)])
    assert names(model) == {"head"}


def test_inputs_may_be_a_dict():
    class Named(Subclassed):
        def call(self, inputs, training=None):
            return super().call(inputs["a"] + inputs["b"])

    model = Named()
    model({"a": ops.ones((2, 6)), "b": ops.ones((2, 6))})
    assert names(model) == {"last"}


def test_nobody_knows_where_that_fails():
    model = Opaque()
    model(ops.ones((2, 6)))
    assert output_layers(model) == ([], "opaque")


def test_a_sequential_without_shapes_is_read_from_its_end():
    inner = keras.Sequential([layers.Dense(4, name="head"), layers.Dropout(0.1)])
    assert names(keras.Sequential([layers.Dense(5), inner, layers.Softmax()])) == {"head"}
    features = [layers.Dense(5), layers.BatchNormalization(), layers.ReLU()]
    assert names(keras.Sequential(features)) == set()
