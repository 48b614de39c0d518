"""L2 and other regularizers on finished models, as asked in the forums of Keras and TensorFlow.

Without this package, `layer.kernel_regularizer = ...` on a built layer has no effect: keras issues
4852, 7688, 9106, 12053 and 16316, tensorflow issues 33635 and 37511.
"""

import warnings

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers
from small_models import (
    Subclassed,
    actions,
    batch,
    convolutional_model,
    dense_model,
    row_of,
    sum_of_losses,
    transformer_model,
)

from keras_mhe import (
    MHE,
    MHP,
    HalfSpaceMHE,
    HypersphericalRegularization,
    regularize,
    unregularize,
)
from keras_mhe.kernels import find_kernels
from keras_mhe.models._arguments import accepts_functions

L1, L2, L1L2 = keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2


def squares(*kernels):
    return float(sum(keras.ops.sum(keras.ops.square(kernel)) for kernel in kernels))


def squares_of_all_kernels(model):
    return squares(*(found.kernel.variable for found in find_kernels(model)))


def test_attribute_of_a_built_layer_has_no_effect_and_regularize_repairs_it():
    """tensorflow issue 33635: a loop over the layers sets the attribute."""
    model = dense_model(6, 4)
    for layer in model.layers:
        layer.kernel_regularizer = L2(0.01)
    assert model.losses == []
    table = regularize(model, L2(0.01))
    assert actions(table) == ["regularized", "regularized"]
    assert {row.note for row in table.rows} == {""}
    assert sum_of_losses(model) == pytest.approx(0.01 * squares_of_all_kernels(model), rel=1e-5)


@pytest.mark.slow
def test_loaded_model_gets_l2_in_one_layer_and_keeps_it_after_saving_again(tmp_path):
    """keras issue 9106: the weights and the state of the optimizer stay."""
    inputs, labels = batch()
    model = dense_model(6, 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, labels, verbose=0)
    model.save(tmp_path / "first.keras")
    loaded = keras.models.load_model(tmp_path / "first.keras")
    before = loaded.evaluate(inputs, labels, verbose=0)
    state = [np.array(v) for v in (*loaded.weights, *loaded.optimizer.variables)]
    row = row_of(regularize(loaded, L2(0.1), where="dense_0"), "dense_0")
    assert row.saved
    for old, new in zip(state, (*loaded.weights, *loaded.optimizer.variables), strict=True):
        np.testing.assert_array_equal(old, np.array(new))
    decay = 0.1 * squares(loaded.layers[0].kernel)
    after = loaded.evaluate(inputs, labels, verbose=0)
    assert after == pytest.approx(before + decay, rel=1e-5)
    loaded.fit(inputs, labels, epochs=3, verbose=0)
    assert 0.1 * squares(loaded.layers[0].kernel) < decay
    loaded.save(tmp_path / "second.keras")
    again = keras.models.load_model(tmp_path / "second.keras")
    assert sum_of_losses(again) == pytest.approx(sum_of_losses(loaded), rel=1e-6)
    assert again.layers[1].kernel.regularizer is None


def test_pretrained_model_inside_a_model_of_the_user_gets_l2():
    """tensorflow issue 37511: a network of `keras.applications` in a subclassed model."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone = convolutional_model()
            self.head = layers.Dense(2)

        def call(self, x):
            return self.head(self.backbone(x))

    model = Model()
    model(normals(1, 8, 8, 3))
    regularize(model, L2(1e-2))
    # All six kernels, both of SeparableConv too, and the head: `grouped` had this L2 before.
    assert len(model.losses) == 7
    assert sum_of_losses(model) == pytest.approx(0.01 * squares_of_all_kernels(model), rel=1e-5)


@pytest.mark.slow
def test_mobile_net_trains_and_is_saved_with_l2_on_all_kernels(tmp_path):
    """keras issue 16316: training or saving failed, depending on how the loss was added."""
    model = keras.applications.MobileNetV3Small(
        weights=None, input_shape=(32, 32, 3), classes=4, include_preprocessing=False
    )
    kinds = (layers.Conv2D, layers.DepthwiseConv2D)
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, kinds)]
    table = regularize(model, L2(1e-4))
    assert actions(table) == ["regularized"] * len(kernels)
    assert all(row.saved for row in table.rows)
    assert sum_of_losses(model) == pytest.approx(1e-4 * squares(*kernels), rel=1e-4)
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(normals(4, 32, 32, 3), np.arange(4), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-5)


@pytest.mark.parametrize("build", [transformer_model, convolutional_model])
def test_every_kernel_is_regularized_and_saved(build, tmp_path):
    model = build()
    table = regularize(model, L1L2(0.0, 1e-3))
    assert {row.action for row in table.rows} == {"regularized"}
    assert all(row.saved and row.neurons is None for row in table.rows)
    assert sum_of_losses(model) == pytest.approx(1e-3 * squares_of_all_kernels(model), rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-5)
    assert len(loaded.losses) == len(table.rows)


def test_kernels_without_comparable_neurons_are_regularized_too():
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 1, name="line")(tokens)
    x = layers.LSTM(1, name="one_unit")(x)
    model = keras.Model(tokens, layers.Dense(1, name="single")(x))
    with pytest.raises(ValueError, match="No kernel"):
        regularize(model)
    assert set(actions(regularize(model, L2(0.1)))) == {"regularized"}
    assert sum_of_losses(model) == pytest.approx(0.1 * squares_of_all_kernels(model), rel=1e-5)


def test_biases_normalizations_and_other_weights_stay_without_a_regularizer():
    """keras issue 12053 asks for biases too: these are no kernels."""
    model = convolutional_model()
    regularize(model, L2(0.1))
    kernels = {id(found.kernel.variable) for found in find_kernels(model)}
    others = [weight for weight in model.weights if id(weight) not in kernels]
    assert {weight.name for weight in others} >= {"bias", "gamma", "beta"}
    assert all(weight.regularizer is None for weight in others)


class TestSecondCalls:
    def test_second_call_changes_the_factor_between_epochs(self):
        """keras issue 4852: change the regularization in between training."""
        inputs, labels = batch()
        model = dense_model(6, 3)
        model.compile(
            keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        regularize(model, L2(1e-2))
        change = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: regularize(model, L2(1e-1))
        )
        losses = model.fit(inputs, labels, 16, epochs=2, verbose=0, callbacks=[change]).history
        more = (1e-1 - 1e-2) * squares_of_all_kernels(model)
        assert losses["loss"][1] - losses["loss"][0] == pytest.approx(more, rel=1e-4)
        assert len(model.losses) == 2

    def test_norms_and_energies_do_not_replace_each_other(self):
        model = dense_model(6, 4)
        kernel = model.layers[0].kernel
        regularize(model, L2(1e-4))
        table = regularize(model, L2(1e-3))
        assert {row.note for row in table.rows} == {"replaces L2(0.0001)"}
        table = regularize(model, L1(1e-2))
        assert {row.note for row in table.rows} == {"in addition to L2"}
        assert kernel.regularizer.get_config() == pytest.approx({"l1": 1e-2, "l2": 1e-3})
        table = regularize(model)
        assert {row.note for row in table.rows} == {"in addition to L1L2"}
        table = regularize(model, L2(1e-5))
        assert table.rows[0].note == "in addition to HalfSpaceMHE, L1; replaces L2(0.001)"
        energy = float(HalfSpaceMHE()(kernel))
        expected = energy + 1e-5 * squares(kernel) + 1e-2 * float(keras.ops.sum(abs(kernel)))
        assert float(kernel.regularizer(kernel)) == pytest.approx(expected, rel=1e-5)
        # A factor of zero switches a norm off.
        regularize(model, L1L2(0.0, 0.0))
        assert float(kernel.regularizer(kernel)) == pytest.approx(energy, rel=1e-5)

    def test_equal_regularizer_is_the_same_object_after_a_second_call(self):
        model = dense_model(6, 4)
        regularize(model, L2(1e-4))
        before = [layer.kernel.regularizer for layer in model.layers]
        table = regularize(model, L2(1e-4))
        assert actions(table) == ["regularized", "regularized"]
        assert {row.note for row in table.rows} == {""}
        after = [layer.kernel.regularizer for layer in model.layers]
        assert list(map(id, before)) == list(map(id, after))

    def test_unregularize_removes_energies_only(self):
        model = dense_model(6, 4)
        regularize(model)
        regularize(model, L2(1e-4))
        unregularize(model)
        assert [type(layer.kernel.regularizer) for layer in model.layers] == [L2, L2]
        assert unregularize(model).rows == []


class TestOtherModels:
    def test_subclassed_and_unbuilt_models_get_l2(self):
        model = Subclassed()
        model(normals(2, 8))
        regularize(model, "l2")
        assert sum_of_losses(model) == pytest.approx(0.01 * squares_of_all_kernels(model), rel=1e-5)
        later = keras.Sequential([layers.SeparableConv1D(4, 2), layers.LSTM(3), layers.Dense(2)])
        assert set(actions(regularize(later, "l2"))) == {"regularized"}
        later.build((None, 5, 3))
        assert len(later.losses) == 5
        assert sum_of_losses(later) == pytest.approx(0.01 * squares_of_all_kernels(later), rel=1e-5)

    def test_frozen_and_quantized_kernels_add_nothing(self):
        model = dense_model(6, 5, 4)
        model.layers[0].trainable = False
        model.layers[1].quantize("int8")
        table = regularize(model, L2(0.1))
        assert [row.note for row in table.rows] == [
            "frozen: no effect until it is trainable",
            "quantized, int8",
            "",
        ]
        assert sum_of_losses(model) == pytest.approx(0.1 * squares(model.layers[2].kernel))

    def test_lora_has_l2_on_both_factors_after_saving_too(self, tmp_path):
        model = dense_model(6, 4)
        first, last = model.layers
        first.enable_lora(2)
        first.lora_kernel_b.assign(normals(2, 6))
        row = row_of(regularize(model, L2(0.1)), "dense_0")
        assert (row.note, row.saved) == ("LoRA: both factors", True)
        factors = first.lora_kernel_a, first.lora_kernel_b
        expected = 0.1 * squares(*factors, last.kernel)
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)
        model.save(tmp_path / "model.keras")
        # Keras adds the factors to the kernel of the file, so they are zero after loading.
        [first, last] = keras.models.load_model(tmp_path / "model.keras").layers
        for weight in (first.lora_kernel_a, first.lora_kernel_b, last.kernel):
            assert weight.regularizer.l2 == pytest.approx(0.1)

    def test_wrapped_layers_are_skipped_with_advice(self):
        wrapper = HypersphericalRegularization(layers.Dense(6, name="inner"), MHE(), name="wrapped")
        model = keras.Sequential([keras.Input((8,)), wrapper, layers.Dense(3, name="head")])
        note = row_of(regularize(model, L2(0.1)), "wrapped").note
        assert note == "wrapped: add it to the regularizer of the wrapper"
        with pytest.raises(ValueError, match="add it to the regularizer of the wrapper"):
            regularize(model, L2(0.1), None)

    def test_separable_convolution_can_be_wrapped_beside_its_depthwise_kernel(self):
        model = keras.Sequential(
            [keras.Input((5, 3)), layers.SeparableConv1D(4, 2, name="separable"), layers.Flatten()]
        )
        table = regularize(model, MHP(), MHP())
        assert actions(table) == ["regularized", "skipped"]
        assert table.rows[1].note == "filters of different channels do not compete"
        assert len(table.model.losses) == 1


class TestSaving:
    def test_registered_regularizers_of_the_user_are_saved(self, tmp_path):
        @keras.saving.register_keras_serializable(package="test_finished_models")
        class Cubes(keras.Regularizer):
            def __init__(self, factor=0.1):
                self.factor = factor

            def __call__(self, kernel):
                return self.factor * keras.ops.sum(abs(kernel) ** 3)

            def get_config(self):
                return {"factor": self.factor}

        @keras.saving.register_keras_serializable(package="test_finished_models")
        def fourth(kernel):
            return 0.1 * keras.ops.sum(kernel**4)

        functions = [fourth] if accepts_functions() else []
        for regularizer in (Cubes(), *functions, HalfSpaceMHE() + Cubes()):
            model = dense_model(6, 4)
            assert all(row.saved for row in regularize(model, regularizer, regularizer).rows)
            model.save(tmp_path / "model.keras")
            loaded = keras.models.load_model(tmp_path / "model.keras")
            assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-5)

    def test_other_regularizers_of_the_user_are_reported_as_not_saved(self, tmp_path):
        class Unregistered(keras.Regularizer):
            def __call__(self, kernel):
                return keras.ops.sum(kernel)

            def get_config(self):
                return {}

        class WithoutConfig(keras.Regularizer):
            def __call__(self, kernel):
                return keras.ops.sum(kernel)

        def function(kernel):
            return keras.ops.sum(kernel)

        def save_and_load(model):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
                model.save(tmp_path / "model.keras")
            return keras.models.load_model(tmp_path / "model.keras")

        functions = [function, lambda kernel: 0.0] if accepts_functions() else []
        for regularizer in (Unregistered(), WithoutConfig(), *functions):
            model = dense_model(6, 4)
            table = regularize(model, regularizer, L2(0.1))
            # A file that contains one of them does not load, so the L2 is lost too.
            assert [row.saved for row in table.rows] == [False, False]
            assert "register_keras_serializable" in table.rows[0].note
            with pytest.raises((NotImplementedError, TypeError, ValueError)):
                save_and_load(model)
            regularize(model, regularizer, L2(0.2))
            assert len(model.losses) == 2
