"""Access to private parts of Keras works, and a missing part raises a clear error.

Factors of LoRA have no energy, because their columns are not neurons.
"""

import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import MHE, HalfSpaceMHE, hyperspherical_energy
from keras_mhe import _keras_internals as internals
from keras_mhe._keras_internals import is_low_rank_factor, low_rank_factors


def with_lora(layer, shape):
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
def test_every_layer_with_lora_has_two_low_rank_factors(layer, shape, name):
    layer.build(shape)
    assert low_rank_factors(layer, name) == []
    layer.enable_lora(2)
    factors = low_rank_factors(layer, name)
    assert [factor.name for factor in factors] == [f"lora_{name}_a", f"lora_{name}_b"]
    assert all(map(is_low_rank_factor, factors))
    assert not is_low_rank_factor(getattr(layer, f"_{name}"))


def test_only_other_regularizers_of_a_sum_apply_to_low_rank_factors():
    regularizer = MHE(10.0) + keras.regularizers.L2(0.01)
    layer = with_lora(layers.Dense(6, kernel_regularizer=regularizer), (None, 8))
    squares = float(keras.ops.sum(layer.lora_kernel_a**2))
    assert sum(map(float, layer.losses)) == pytest.approx(0.01 * squares, rel=1e-6)


def test_compiled_training_of_low_rank_factors_is_not_regularized():
    """Weights equal those without a regularizer, although one factor starts from zero."""
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
    for expected, got in zip(*trained, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_array_is_no_low_rank_factor():
    kernel = normals(8, 6)
    assert not is_low_rank_factor(kernel)
    assert float(MHE(1.0)(kernel)) > 0


def enter_context(context):
    with context:
        pass


def test_activity_regularizers_give_the_energy_of_the_outputs():
    """Keras calls them in another method of the same module, where there is no weight."""
    layer = layers.Dense(4, activity_regularizer=MHE(10.0))
    # One example: some versions of Keras divide the loss by the size of the batch.
    outputs = layer(normals(1, 5, 3))
    expected = 10.0 * float(hyperspherical_energy(outputs))
    assert [float(loss) for loss in layer.losses] == pytest.approx([expected], rel=1e-5)


class TestMissingParts:
    """Every function raises an error that names the missing part of Keras."""

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda x: internals.nested_layers(x), "_flatten_layers"),
            (lambda x: internals.source_of(SimpleNamespace(_keras_history=(x, 0, 0))), "_inbound"),
            (lambda x: enter_context(internals.no_new_nodes(x)), "_flatten_layers"),
            (lambda x: internals.attention_regularizer_attribute(x), "_kernel_regularizer"),
            (lambda x: internals.low_rank_factors(x, "kernel"), "lora_kernel_a"),
            (lambda x: enter_context(internals.not_compiled(x)), "compiled"),
        ],
    )
    def test_error_names_a_missing_attribute(self, call, name):
        with pytest.raises(RuntimeError, match=rf"relies on `SimpleNamespace\.{name}"):
            call(SimpleNamespace(lora_enabled=True))

    @pytest.mark.once
    def test_error_names_a_missing_compiled_step(self, monkeypatch):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        monkeypatch.delattr(model, "train_function")
        with pytest.raises(RuntimeError, match=r"relies on `Sequential\.train_function`"):
            internals.forget_compiled_steps(model)

    @pytest.mark.once
    def test_error_names_a_missing_history_of_tensors(self, monkeypatch):
        monkeypatch.setattr(internals, "_records_history", lambda: False)
        with pytest.raises(RuntimeError, match=r"relies on `KerasTensor\._keras_history`"):
            internals.source_of(keras.KerasTensor((2, 3)))

    @pytest.mark.once
    def test_error_names_a_missing_method_of_losses(self, monkeypatch):
        monkeypatch.setattr(internals, "_LOSS_METHOD", "_losses_of_another_version")
        with pytest.raises(RuntimeError, match=r"relies on `Layer\._losses_of_another_version`"):
            is_low_rank_factor(normals(3, 2))

    @pytest.mark.once
    def test_error_names_a_missing_local_name(self):
        """Calls the function from a frame with the names of the Keras module and method."""
        module, method = sys.modules[internals._LAYER_MODULE], internals._LOSS_METHOD
        assert hasattr(module.Layer, method)
        names = {"__name__": module.__name__, "call": is_low_rank_factor}
        exec(f"def {method}(value): return call(value)", names)
        with pytest.raises(RuntimeError, match="relies on the name `variable`"):
            names[method](normals(3, 2))

    def test_installed_keras_has_all_parts(self):
        inputs = keras.Input((5, 8))
        attention = layers.MultiHeadAttention(2, 4)
        model = keras.Model(inputs, attention(inputs, inputs))
        assert internals.source_of(model.outputs[0])[0] is attention
        assert attention in internals.nested_layers(model)
        assert hasattr(attention, internals.attention_regularizer_attribute(attention))
        with internals.not_compiled(model):
            assert not model.compiled
        internals.forget_compiled_steps(model)
        count = len(attention._inbound_nodes)
        with internals.no_new_nodes(model):
            attention(keras.KerasTensor((2, 5, 8)), keras.KerasTensor((2, 5, 8)))
            assert len(attention._inbound_nodes) > count
        assert len(attention._inbound_nodes) == count
