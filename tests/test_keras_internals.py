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


def losses(layer):
    return [float(loss) for loss in layer.losses]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(6), (None, 8)),
        (layers.Conv2D(6, 3), (None, 9, 9, 2)),
        (layers.EinsumDense("ab,bcd->acd", (2, 3)), (None, 8)),
        (layers.Embedding(9, 4), (None, 5)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_factors_of_every_layer_with_lora_have_no_energy(layer, shape):
    argument = "embeddings" if isinstance(layer, layers.Embedding) else "kernel"
    axis = 0 if argument == "embeddings" else None
    setattr(layer, f"{argument}_regularizer", MHE(1.0, neuron_axis=axis))
    layer.build(shape)
    assert low_rank_factors(layer) == []
    assert losses(layer)[0] > 0
    layer.enable_lora(2)
    factors = low_rank_factors(layer)
    assert [factor.name for factor in factors] == [f"lora_{argument}_a", f"lora_{argument}_b"]
    assert all(factor.regularizer is not None for factor in factors)
    assert losses(layer) == [0.0, 0.0]


class TestIdentity:
    """A factor is a weight that a layer with LoRA has as its factor; names do not matter."""

    def test_weights_of_other_layers_with_such_names_have_an_energy(self):
        class Adapter(layers.Layer):
            def build(self, shape):
                self.a, self.b = (
                    self.add_weight(shape=(8, 3), name=f"lora_kernel_{name}", regularizer=MHE(1.0))
                    for name in "ab"
                )

            def call(self, inputs):
                return inputs @ (self.a + self.b)

        model = keras.Sequential([keras.Input((8,)), Adapter(), layers.Dense(4)])
        expected = [float(hyperspherical_energy(weight)) for weight in model.layers[0].weights]
        assert losses(model) == pytest.approx(expected, rel=1e-6)
        # On JAX, a compiled step passes values in place of variables.
        model.compile(keras.optimizers.SGD(0.0), "mse")
        history = model.fit(np.zeros((2, 8)), np.zeros((2, 4)), verbose=0)
        assert history.history["loss"] == pytest.approx([sum(expected)], rel=1e-5)

    def test_other_layers_may_have_an_attribute_of_the_same_name(self):
        class Own(layers.Dense):
            lora_enabled = property(lambda self: False, lambda self, value: None)

        class Adapted(layers.Layer):
            lora_enabled = True

            def build(self, shape):
                self.kernel = self.add_weight(shape=(8, 3), name="kernel", regularizer=MHE(1.0))

        for layer in (Own(3, kernel_regularizer=MHE(1.0)), Adapted()):
            layer.build((None, 8))
            expected = float(hyperspherical_energy(layer.kernel))
            assert losses(layer) == pytest.approx([expected], rel=1e-6)

    def test_factor_that_a_user_passes_is_a_kernel_like_any_other(self):
        """No call of Keras is involved, also if a local variable has the name of one in Keras."""
        layer = with_lora(layers.Dense(6), (None, 8))
        variable = layer.lora_kernel_a
        assert float(MHE(1.0)(variable)) == pytest.approx(float(hyperspherical_energy(variable)))

    def test_factors_of_a_layer_inside_a_model_have_no_energy(self):
        """Keras then calls the regularizer for the model, not for the layer."""
        inner = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=MHE())])
        model = keras.Sequential([keras.Input((8,)), inner])
        assert losses(model)[0] > 0
        inner.layers[0].enable_lora(2)
        assert losses(model) == [0.0, 0.0]


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


def enter_context(context):
    with context:
        pass


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
            (lambda x: enter_context(internals.not_compiled(x)), "compiled"),
            (lambda x: internals.add_state(x, 1.0), "_seed_generators"),
        ],
    )
    def test_error_names_a_missing_attribute(self, call, name):
        with pytest.raises(RuntimeError, match=rf"relies on `SimpleNamespace\.{name}"):
            call(SimpleNamespace())

    @pytest.mark.once
    def test_error_names_a_missing_factor(self):
        layer = layers.Dense(3)
        layer.lora_enabled = True
        with pytest.raises(RuntimeError, match=r"relies on `Dense\.lora_kernel_a`"):
            low_rank_factors(layer)

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
            is_low_rank_factor()

    @pytest.mark.once
    @pytest.mark.parametrize(("name", "other"), [("variable", "self"), ("self", "variable")])
    def test_error_names_a_missing_local_name(self, name, other):
        """Calls the function from a frame with the names of the Keras module and method."""
        module, method = sys.modules[internals._LAYER_MODULE], internals._LOSS_METHOD
        assert hasattr(module.Layer, method)
        names = {"__name__": module.__name__, "call": is_low_rank_factor}
        exec(f"def {method}({other}): return call()", names)
        with pytest.raises(RuntimeError, match=f"relies on the name `{name}`"):
            names[method](None)

    @pytest.mark.once
    def test_error_names_state_that_a_model_does_not_list(self):
        model = SimpleNamespace(_seed_generators=[], non_trainable_variables=[])
        with pytest.raises(RuntimeError, match=r"relies on `Layer\._seed_generators` as a part"):
            internals.add_state(model, 1.0)

    def test_keras_calls_activity_regularizers_itself(self):
        """And weights, users and other methods of layers are told apart from it."""
        calls = []
        names = {
            # Frames of this package are skipped.
            "__name__": "keras_mhe.module",
            "Regularizer": keras.regularizers.Regularizer,
            "is_activity": internals.is_activity,
            "calls": calls,
        }
        exec(
            "class Record(Regularizer):\n"
            "    def __call__(self, x):\n"
            "        calls.append(is_activity())\n"
            "        return x[0, 0]\n",
            names,
        )
        record = names["Record"]()
        layer = layers.Dense(2, activity_regularizer=record, kernel_regularizer=record)
        layer(np.ones((3, 4), "float32"))
        assert len(layer.losses) == 2
        record(layer.kernel)
        assert calls == [True, False, False]

    def test_state_of_a_model_is_no_weight(self):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        variable = internals.add_state(model, 1.5)
        assert any(variable is other for other in model.non_trainable_variables)
        assert len(model.weights) == 2
        assert float(variable) == 1.5
        assert variable.dtype == "float32"

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
