"""Small models with kernels of many kinds, and what `regularize` did to them."""

import keras
import numpy as np
from helpers import energy_value, normals
from keras import layers

HALF = {"half_space": True}


def sum_of_losses(model):
    return float(sum(float(loss) for loss in model.losses))


def actions(table):
    return [row.action for row in table.rows]


def roles(table):
    return {f"{row.layer}/{row.kernel}": row.role for row in table.rows}


def row_of(table, layer):
    (row,) = [row for row in table.rows if row.layer == layer]
    return row


def transformer_model():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="tokens")(tokens)
    attended = layers.MultiHeadAttention(2, 3, value_dim=5, name="attention")(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    grouped = layers.GroupQueryAttention(
        head_dim=3, num_query_heads=4, num_key_value_heads=2, name="grouped"
    )(x, x)
    x = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")(grouped)
    return keras.Model(tokens, layers.Softmax()(layers.Dense(5, name="head")(x)))


def transformer_energy(model):
    """The sum over all kernels, with axes and groups written out."""
    get = model.get_layer
    attention, grouped = get("attention"), get("grouped")
    into = {"neuron_axis": (1, 2), **HALF}
    out = {"neuron_axis": 2, **HALF}
    values = [energy_value(get("tokens").embeddings, neuron_axis=0)]
    for projection in (attention.query_dense, attention.key_dense, attention.value_dense):
        values.append(energy_value(projection.kernel, **into))
    values.append(energy_value(attention.output_dense.kernel, **out))
    for name in ("query", "key", "value", "output"):
        axes = out if name == "output" else into
        values.append(energy_value(getattr(grouped, f"_{name}_dense").kernel, **axes))
    for direction in (get("both").forward_layer, get("both").backward_layer):
        values.append(energy_value(direction.cell.kernel, groups=4, **HALF))
        values.append(energy_value(direction.cell.recurrent_kernel, groups=4, **HALF))
    return sum(values) + 10 * energy_value(get("head").kernel)


def convolutional_model(**last):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, groups=3, name="grouped", kernel_regularizer="l2"),
            layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 2, name="separable"),
            layers.Conv2DTranspose(5, 2, name="transposed"),
            layers.Flatten(),
            layers.Dense(3, name="head", **last),
            layers.Activation("softmax"),
        ]
    )


def convolutional_energy(model):
    get = model.get_layer
    return (
        energy_value(get("grouped").kernel, groups=3, **HALF)
        + 0.01 * float(keras.ops.sum(get("grouped").kernel ** 2))
        + energy_value(get("separable").pointwise_kernel, **HALF)
        + energy_value(get("transposed").kernel, neuron_axis=-2, **HALF)
        + 10 * energy_value(get("head").kernel)
    )


def dense_model(*units, dtype=None):
    stack = [keras.Input((8,))]
    stack += [layers.Dense(n, name=f"dense_{i}", dtype=dtype) for i, n in enumerate(units)]
    return keras.Sequential(stack)


def batch(count=16, classes=3):
    return normals(count, 8), np.arange(count) % classes


class Subclassed(keras.Model):
    """A subclassed model of two dense layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(4, name="first"), layers.Dense(3, name="last")

    def call(self, inputs):
        return keras.ops.softmax(self.last(keras.ops.relu(self.first(inputs))))
