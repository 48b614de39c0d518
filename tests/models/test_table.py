"""The table that `regularize` returns."""

import keras
from keras import layers
from small_models import row_of, transformer_model

from keras_mhe import regularize


def test_table_fits_80_columns_and_has_the_shape_of_each_kernel():
    table = regularize(transformer_model())
    text = repr(table)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Kernels regularized: 14 of 14.")
    row = row_of(table, "head")
    assert (row.groups, row.dimension, row.neurons, row.shape) == (1, 8, 5, (8, 5))
    assert {row.groups for row in table.rows if row.layer == "both"} == {4}


def test_names_of_layers_are_escaped():
    names = ["a\nb", "a\x1b[2J", ":x:"]
    stack = [layers.DepthwiseConv2D(3, name=name) for name in names]
    pooling = layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((20, 20, 4)), *stack, pooling, layers.Dense(3)])
    text = repr(regularize(model))
    assert "\x1b" not in text
    assert r"can include it: a\x0ab, a\x1b[2J, :x:." in " ".join(text.split())


def test_notes_are_listed_below_the_table_once_for_each_reason():
    stack = [layers.DepthwiseConv2D(3, name=f"depthwise_{i}") for i in range(6)]
    pooling = layers.GlobalAveragePooling2D()
    head = layers.Dense(3, kernel_regularizer="l2", name="head")
    model = keras.Sequential([keras.Input((20, 20, 4)), *stack, pooling, head])
    notes = " ".join(repr(regularize(model)).split("\n \n")[-1].split())
    assert "Skipped, filters of different channels do not compete" in notes
    assert "depthwise_0, depthwise_1, depthwise_2, depthwise_3 and 2 more." in notes
    assert "Regularized, in addition to L2: head." in notes
