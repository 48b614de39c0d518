"""Factors of LoRA have no energy: their directions are not those of neurons."""

import keras
import numpy as np
import pytest
from keras import layers
from probes import normals

from keras_mhe import MHE, HalfSpaceMHE
from keras_mhe.lora import is_low_rank_factor, low_rank_factors


def adapted(layer, shape):
    layer.build(shape)
    layer.enable_lora(2)
    return layer


@pytest.mark.parametrize(
    ("layer", "shape", "name"),
    [
        (layers.Dense(6), (None, 8), "kernel"),
        (layers.Conv2D(6, 3), (None, 9, 9, 2), "kernel"),
        (layers.EinsumDense("ab,bcd->acd", (2, 3)), (None, 8), "kernel"),
        (layers.Embedding(9, 4), (None, 5), "embeddings"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_layer_that_has_lora_has_two_of_them(layer, shape, name):
    layer.build(shape)
    assert low_rank_factors(layer, name) == []
    layer.enable_lora(2)
    factors = low_rank_factors(layer, name)
    assert [factor.name for factor in factors] == [f"lora_{name}_a", f"lora_{name}_b"]
    assert all(map(is_low_rank_factor, factors))
    assert not is_low_rank_factor(getattr(layer, f"_{name}"))


def test_a_plain_regularizer_adds_nothing_for_them_but_the_others_in_a_sum_do():
    regularizer = MHE(10.0) + keras.regularizers.L2(0.01)
    layer = adapted(layers.Dense(6, kernel_regularizer=regularizer), (None, 8))
    squares = float(keras.ops.sum(layer.lora_kernel_a**2))
    assert sum(map(float, layer.losses)) == pytest.approx(0.01 * squares, rel=1e-6)


def test_nor_in_a_compiled_step_where_they_start_from_zero():
    """The weights are those of training without a regularizer."""
    inputs, labels = normals(32, 8), np.arange(32) % 4
    trained = []
    for regularizer in (None, HalfSpaceMHE(1.0)):
        keras.utils.set_random_seed(0)
        stack = [layers.Dense(n, kernel_regularizer=regularizer) for n in (6, 4)]
        model = keras.Sequential([keras.Input((8,)), *stack])
        for layer in model.layers:
            layer.enable_lora(2)
        model.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.fit(inputs, labels, batch_size=8, epochs=3, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for bare, regularized in zip(*trained, strict=True):
        np.testing.assert_array_equal(bare, regularized)


def test_a_bare_array_is_a_kernel():
    variable = normals(8, 6)
    assert not is_low_rank_factor(variable)
    assert float(MHE(1.0)(variable)) > 0
