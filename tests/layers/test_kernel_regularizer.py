"""The wrapper follows its layer: LoRA and quantization change the weights after it was built.

Every such model can be saved, loaded and cloned.
"""

import gc
import weakref

import keras
import numpy as np
import pytest
from helpers import energy_value, normals
from keras import layers
from small_models import row_of, sum_of_losses

from keras_mhe import (
    AngleProjection,
    CoMHE,
    HalfSpaceMHE,
    HypersphericalRegularization,
    regularize,
    unregularize,
)

LEARNED = CoMHE(projection=AngleProjection(3))
INPUTS, TARGETS = normals(8, 9), normals(8, 4, seed=1)


def network(regularizer, layer=None):
    layer = layers.Dense(6, name="inner") if layer is None else layer
    wrapper = HypersphericalRegularization(layer, regularizer, name="wrapper")
    model = keras.Sequential([keras.Input((9,)), wrapper, layers.Dense(4, name="head")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def effective_energy(layer, **options):
    return energy_value(layer.kernel, half_space=True, **options)


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def enable_lora(layer):
    layer.enable_lora(2)
    name = "embeddings" if isinstance(layer, layers.Embedding) else "kernel"
    factor = getattr(layer, f"lora_{name}_b")
    factor.assign(normals(*factor.shape, seed=2))


class TestLoRA:
    def test_trained_model_continues_with_the_energy_of_the_effective_kernel(self, tmp_path):
        """The wrapper was built, compiled and trained before LoRA was enabled."""
        decay = keras.regularizers.L2(0.01)
        model = network(HalfSpaceMHE(2.0) + decay)
        model.fit(INPUTS, TARGETS, verbose=0)
        layer = model.layers[0].layer
        enable_lora(layer)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model(INPUTS)
        factors = (layer.lora_kernel_a, layer.lora_kernel_b)
        squares = sum(float(keras.ops.sum(factor**2)) for factor in factors)
        expected = 2 * effective_energy(layer) + 0.01 * squares
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)

        before = effective_energy(layer)
        silent = np.zeros_like(INPUTS)  # all gradients of the factors come from the energy
        model.fit(silent, TARGETS, epochs=20, verbose=0)
        assert effective_energy(layer) < before - 1e-3
        loaded = saved_and_loaded(model, tmp_path)
        energy = 2 * effective_energy(layer)
        # Keras merges the factors into the kernel and loads factors of zero.
        assert sum_of_losses(loaded) == pytest.approx(energy, rel=1e-5)

    @pytest.mark.parametrize(
        ("layer", "shape", "axes"),
        [
            (layers.Conv2D(6, 3), (None, 9, 9, 2), {}),
            (layers.EinsumDense("ab,bcd->acd", (2, 3)), (None, 8), {"neuron_axis": (1, 2)}),
            (layers.Embedding(9, 4), (None, 5), {"neuron_axis": 0}),
            (layers.TimeDistributed(layers.Dense(6)), (None, 5, 8), {}),
        ],
        ids=lambda x: type(x).__name__,
    )
    def test_layer_that_had_lora_before_is_regularized(self, layer, shape, axes):
        """The neurons are those of the layer without LoRA."""
        layer.build(shape)
        inner = getattr(layer, "layer", layer)
        enable_lora(inner)
        wrapper = HypersphericalRegularization(layer, HalfSpaceMHE(2.0))
        wrapper.build(shape)
        kernel = inner.embeddings if isinstance(inner, layers.Embedding) else inner.kernel
        expected = 2 * energy_value(kernel, half_space=True, **axes)
        assert [float(loss) for loss in wrapper.losses] == pytest.approx([expected], rel=1e-5)

    def test_projections_of_wrapped_attention_are_regularized(self):
        attention = layers.MultiHeadAttention(2, 3)
        attention.build((None, 4, 8), (None, 4, 8))
        wrapper = HypersphericalRegularization(attention, HalfSpaceMHE(1.0))
        wrapper(normals(1, 4, 8), normals(1, 4, 8))
        before = sum(float(loss) for loss in wrapper.losses)
        enable_lora(attention.query_dense)
        frozen = energy_value(attention.query_dense._kernel, half_space=True, neuron_axis=(1, 2))
        wrapper(normals(1, 4, 8), normals(1, 4, 8))
        expected = before - frozen + effective_energy(attention.query_dense, neuron_axis=(1, 2))
        assert sum(float(loss) for loss in wrapper.losses) == pytest.approx(expected, rel=1e-5)

    def test_state_is_learned_from_the_effective_kernel(self):
        wrapper = network(LEARNED).layers[0]
        enable_lora(wrapper.layer)
        state = keras.ops.copy(wrapper.state["projection"])
        expected = LEARNED.update_state(wrapper.layer.kernel, {"projection": state})
        wrapper(INPUTS, training=True)
        np.testing.assert_allclose(
            wrapper.state["projection"], expected["projection"], rtol=1e-5, atol=1e-6
        )

    def test_newer_wrapper_stays_when_the_layer_gets_lora(self):
        """Calls of the replaced wrapper do not bring back its energy."""
        layer = layers.Dense(6)
        old, new = (HypersphericalRegularization(layer, HalfSpaceMHE(f)) for f in (2.0, 3.0))
        for wrapper in (old, new):
            wrapper.build((None, 9))
        enable_lora(layer)
        for wrapper in (old, new, old):
            wrapper(INPUTS)
        losses = [float(loss) for loss in new.losses]
        assert losses == pytest.approx([3 * effective_energy(layer)], rel=1e-5)

    def test_regularize_wraps_a_layer_with_lora_and_unregularize_undoes_it(self):
        model = keras.Sequential([keras.Input((9,)), layers.Dense(6), layers.Dense(4)])
        enable_lora(model.layers[0])
        table = regularize(model, LEARNED, None)
        row = row_of(table, model.layers[0].name)
        assert (row.action, row.saved) == ("regularized", True)
        assert len(table.model.losses) == 1
        assert "already wrapped" in repr(regularize(table.model, LEARNED, None))
        bare = unregularize(table.model).model
        assert bare.losses == []


class TestQuantization:
    @pytest.mark.parametrize("mode", ["int8", "int4"])
    @pytest.mark.parametrize("regularizer", [HalfSpaceMHE(1.0), LEARNED], ids=["mhe", "learned"])
    def test_model_loads_and_is_cloned_with_equal_outputs(self, mode, regularizer, tmp_path):
        model = network(regularizer)
        model.quantize(mode, filters="inner")
        outputs = model.predict(INPUTS, verbose=0)
        loaded, clone = saved_and_loaded(model, tmp_path), keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        for twin in (loaded, clone):
            np.testing.assert_allclose(twin.predict(INPUTS, verbose=0), outputs, atol=1e-6)
            assert twin.losses == []
        for weight, expected in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_lost_energy_is_said_once_in_training_and_in_the_table(self):
        model = network(LEARNED)
        model.quantize("int8", filters="inner")
        model.compile("sgd", "mse", run_eagerly=True)
        with pytest.warns(UserWarning, match=r"kernel of the layer inner.*quantized, int8") as said:
            model.fit(INPUTS, TARGETS, batch_size=4, epochs=2, verbose=0)
        assert len([warning for warning in said if "quantized" in str(warning.message)]) == 1
        row = row_of(regularize(model, output=HalfSpaceMHE(1.0)), "wrapper")
        assert (row.action, row.note) == ("skipped", "quantized, int8: its wrapper has no effect")

    def test_float8_layer_keeps_its_energy(self, tmp_path):
        """In float8 only products are rounded. The kernel stays a float32 variable."""
        model = network(HalfSpaceMHE(1.0))
        model.quantize("float8", filters="inner")
        model(INPUTS)
        expected = effective_energy(model.layers[0].layer)
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)
        loaded = saved_and_loaded(model, tmp_path)
        assert sum_of_losses(loaded) == pytest.approx(expected, rel=1e-5)
        bare = keras.Sequential([keras.Input((9,)), layers.Dense(6), layers.Dense(4)])
        bare.quantize("float8", filters="dense")
        assert {row.action for row in regularize(bare).rows} == {"regularized"}

    def test_memory_of_the_quantized_kernel_becomes_free(self):
        model = network(LEARNED)
        kernel = weakref.ref(model.layers[0].layer.kernel)
        model.quantize("int8", filters="inner")
        model(INPUTS)
        gc.collect()
        assert kernel() is None


def test_weight_that_is_no_floating_point_variable_raises_a_clear_error():
    class Computed(layers.Layer):
        def build(self, shape):
            self.half = self.add_weight(shape=(9, 6), name="half")

        @property
        def kernel(self):
            return keras.ops.convert_to_tensor(self.half) * 2

    with pytest.raises(ValueError, match="not one floating-point variable"):
        HypersphericalRegularization(Computed(), HalfSpaceMHE(1.0)).build((None, 9))
