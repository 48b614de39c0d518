"""`regularize` gives each kernel of a model its energy."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import energy_value, normals
from keras import layers
from small_models import (
    HALF,
    Subclassed,
    actions,
    batch,
    convolutional_energy,
    convolutional_model,
    dense_model,
    roles,
    row_of,
    sum_of_losses,
    transformer_energy,
    transformer_model,
)

from keras_mhe import (
    MHE,
    MHP,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    regularize,
    unregularize,
)


class TestKernels:
    @pytest.mark.parametrize(
        ("build", "energy"),
        [(transformer_model, transformer_energy), (convolutional_model, convolutional_energy)],
    )
    def test_losses_are_the_sum_of_the_energies_of_all_kernels(self, build, energy):
        model = build()
        regularize(model)
        assert sum_of_losses(model) == pytest.approx(energy(model), rel=1e-5)

    def test_nested_models_are_regularized_and_shared_layers_count_once(self):
        shared = layers.Dense(8, name="shared")
        inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="inner")], name="block")
        inputs = keras.Input((8,))
        x = shared(inner(shared(inputs)))
        model = keras.Model(inputs, layers.Dense(3, name="head")(x))
        table = regularize(model)
        assert roles(table) == {
            "shared/kernel": "hidden",
            "block/inner/kernel": "hidden",
            "head/kernel": "output",
        }
        expected = energy_value(shared.kernel, **HALF) + energy_value(
            inner.layers[0].kernel, **HALF
        )
        expected += 10 * energy_value(model.get_layer("head").kernel)
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)

    def test_sequential_model_can_be_built_after_regularize(self):
        built, later = convolutional_model(), keras.Sequential(convolutional_model().layers[0:0])
        for layer in built.layers:
            later.add(type(layer).from_config(layer.get_config()))
        regularize(built)
        table = regularize(later)
        assert row_of(table, "head").role == "output"
        later.build((None, 8, 8, 3))
        later.set_weights(built.get_weights())
        assert sum_of_losses(later) == pytest.approx(sum_of_losses(built), rel=1e-6)

    def test_subclassed_model_is_regularized(self):
        model = Subclassed()
        model(normals(2, 8))
        table = regularize(model)
        assert roles(table) == {"first/kernel": "hidden", "last/kernel": "output"}
        assert sum_of_losses(model) == pytest.approx(
            energy_value(model.first.kernel, **HALF) + 10 * energy_value(model.last.kernel),
            rel=1e-5,
        )

    def test_depthwise_quantized_and_single_neuron_kernels_are_skipped(self):
        model = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(6, name="quantized"),
                layers.Dense(1, name="single"),
                layers.Dense(5, name="line"),
            ]
        )
        model.layers[0].quantize("int8")
        table = regularize(convolutional_model())
        assert "do not compete" in row_of(table, "depthwise").note
        with pytest.raises(ValueError, match=r"quantized, int8.*one neuron.*one coordinate"):
            regularize(model)

    def test_depthwise_kernels_are_regularized_if_where_names_them(self):
        model = convolutional_model()
        regularize(model, where="depthwise")
        kernel = model.get_layer("depthwise").kernel
        l2 = 0.01 * float(keras.ops.sum(model.get_layer("grouped").kernel ** 2))
        expected = energy_value(kernel, neuron_axis=(-2, -1), groups=6, **HALF)
        assert sum_of_losses(model) - l2 == pytest.approx(expected, rel=1e-4)

    def test_attributes_named_like_kernels_are_ignored_unless_they_are_weights(self):
        class Block(layers.Layer):
            def __init__(self, kernel_regularizer=None, **kwargs):
                super().__init__(**kwargs)
                self.kernel_regularizer = kernel_regularizer
                self.embeddings = layers.Dense(4, name="inner")
                self.recurrent_kernel = 3

            def build(self, shape):
                self.embeddings.build(shape)

            @property
            def kernel(self):
                raise AttributeError("none")

            def call(self, inputs):
                return self.embeddings(inputs)

        model = keras.Sequential(
            [keras.Input((8,)), Block(name="block"), layers.Dense(3, name="head")]
        )
        assert [row.layer for row in regularize(model).rows] == ["block/inner", "head"]
        assert model.layers[0].kernel_regularizer is None

    def test_weight_shared_by_two_layers_counts_once(self):
        class Tied(layers.Layer):
            def __init__(self, source, **kwargs):
                super().__init__(**kwargs)
                self.kernel = source.embeddings

            def call(self, inputs):
                return inputs @ keras.ops.transpose(self.kernel)

        tokens = keras.Input((5,), dtype="int32")
        embedding = layers.Embedding(9, 4, name="tokens")
        x = embedding(tokens)
        model = keras.Model(tokens, Tied(embedding, name="tied")(x))
        assert len(regularize(model).rows) == 1
        assert sum_of_losses(model) == pytest.approx(
            energy_value(embedding.embeddings, neuron_axis=0), rel=1e-5
        )

    def test_weights_with_unknown_neurons_are_listed_as_skipped(self):
        class Positions(layers.Layer):
            def build(self, shape):
                self.table = self.add_weight(shape=shape[1:], name="positions")

            def call(self, inputs):
                return inputs + self.table

        model = keras.Sequential([keras.Input((4, 8)), Positions(), layers.Dense(3)])
        (row,) = [row for row in regularize(model).rows if row.kernel == "positions"]
        assert row.action == "skipped"
        assert row.note == "its neurons are unknown"
        (row,) = [row for row in regularize(model, "l2").rows if row.kernel == "positions"]
        assert (row.action, row.note) == ("skipped", "neither a kernel nor embeddings")


class TestSelection:
    def test_where_accepts_a_name_a_tuple_of_names_or_a_predicate(self):
        selected = {
            "dense_1": {"dense_1"},
            ("dense_0", "dense_2"): {"dense_0", "dense_2"},
        }
        for where, names in selected.items():
            table = regularize(dense_model(6, 5, 4), where=where)
            assert {row.layer for row in table.rows if row.action != "skipped"} == names
        table = regularize(dense_model(6, 5, 4), where=lambda layer: layer.units > 4)
        assert actions(table) == ["regularized", "regularized", "skipped"]
        assert [row.role for row in table.rows] == ["hidden", "hidden", "output"]

    def test_none_skips_hidden_or_output_layers(self):
        assert actions(regularize(dense_model(6, 4), hidden=None)) == ["skipped", "regularized"]
        assert actions(regularize(dense_model(6, 4), output=None)) == ["regularized", "skipped"]

    def test_none_for_both_changes_nothing(self):
        model = dense_model(6, 4)
        regularize(model, HalfSpaceMHE(1.0) + keras.regularizers.L2(0.01))
        before = [layer.kernel.regularizer for layer in model.layers]
        table = regularize(model, hidden=None, output=None)
        assert table.model is model
        assert actions(table) == ["skipped", "skipped"]
        assert [row.regularizer for row in table.rows] == before
        assert [layer.kernel.regularizer for layer in model.layers] == before
        assert "`hidden` and `output` are None: nothing was changed" in table.title

    def test_none_for_the_selected_layers_changes_nothing(self):
        model = dense_model(6, 4)
        table = regularize(model, hidden=None, where="dense_0")
        assert model.losses == []
        assert "`hidden` is None: nothing was changed" in table.title
        # A regularizer that acts on no kernel is still an error.
        with pytest.raises(ValueError, match="no regularizer for hidden layers"):
            regularize(model, None, MHE(1.0), where="dense_0")

    @pytest.mark.parametrize("baseline", [None, HalfSpaceMHE(0.0)])
    def test_loop_over_factors_can_begin_with_a_baseline(self, baseline):
        model = dense_model(6, 4)
        for hidden in (baseline, HalfSpaceMHE(1.0), HalfSpaceMHE(2.0)):
            clone = keras.models.clone_model(model)
            clone.set_weights(model.get_weights())
            regularize(clone, hidden, None)
            energy = energy_value(model.layers[0].kernel, **HALF)
            expected = energy * getattr(hidden, "factor", 0.0)
            assert sum_of_losses(clone) == pytest.approx(expected, rel=1e-5)

    def test_neuron_axis_of_the_regularizer_takes_precedence(self):
        model = dense_model(6, 4)
        regularize(model, HalfSpaceMHE(1.0, neuron_axis=0), output=None)
        expected = energy_value(model.layers[0].kernel, neuron_axis=0, **HALF)
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)


class TestExistingRegularizers:
    def test_keras_regularizers_stay_and_are_not_added_twice(self):
        decay = keras.regularizers.L2(0.01)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=decay)])
        bare = sum_of_losses(model)
        table = regularize(model)
        once = sum_of_losses(model)
        assert once == pytest.approx(bare + 10 * energy_value(model.layers[0].kernel), rel=1e-5)
        assert "in addition to L2" in table.rows[0].note
        regularize(model)
        regularize(model, output=MHE(10.0) + keras.regularizers.L2(0.01))
        assert sum_of_losses(model) == pytest.approx(once, rel=1e-6)
        unregularize(model)
        assert model.layers[0].kernel.regularizer is decay
        assert model.layers[0].kernel_regularizer is decay

    def test_a_function_as_existing_regularizer_stays(self):
        def total(kernel):
            return keras.ops.sum(kernel)

        model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=total)])
        bare = sum_of_losses(model)
        [row] = regularize(model, output=MHE(1.0)).rows
        energy = energy_value(model.layers[0].kernel)
        assert sum_of_losses(model) == pytest.approx(bare + energy, rel=1e-5)
        assert row.note.startswith("in addition to total")
        unregularize(model)
        assert model.layers[0].kernel.regularizer is total

    def test_existing_energy_is_replaced(self):
        model = dense_model(6, 4)
        regularize(model)
        before = sum_of_losses(model)
        table = regularize(model, HalfSpaceMHE(0.5), MHE(5.0))
        assert sum_of_losses(model) == pytest.approx(before / 2, rel=1e-6)
        assert "replaces HalfSpaceMHE(1)" in table.rows[0].note


class TestTraining:
    def test_already_fitted_model_uses_the_energy_in_the_next_fit(self):
        inputs, labels = batch()
        keras.utils.set_random_seed(0)
        model, fresh = dense_model(6, 3), dense_model(6, 3)
        fresh.set_weights(model.get_weights())
        for each in (model, fresh):
            each.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        before = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        evaluated = model.evaluate(inputs, labels, batch_size=16, verbose=0)
        regularize(model)
        energy = sum_of_losses(model)
        after = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        assert after == pytest.approx(before + energy, rel=1e-5)
        again = model.evaluate(inputs, labels, batch_size=16, verbose=0)
        assert again == pytest.approx(evaluated + energy, rel=1e-5)
        unregularize(model)
        bare = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        assert bare == pytest.approx(before, rel=1e-6)

    def test_callback_can_change_the_factor_between_epochs(self):
        inputs, labels = batch()
        model = dense_model(6, 3)
        regularize(model)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        change = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: regularize(model, None, MHE(20.0 + epoch))
        )
        losses = model.fit(
            inputs, labels, batch_size=16, epochs=2, verbose=0, callbacks=[change]
        ).history["loss"]
        more = 10 * energy_value(model.layers[1].kernel)
        assert losses[1] - losses[0] == pytest.approx(more, rel=1e-4)

    def test_regularize_keeps_weights_and_optimizer_state(self):
        inputs, labels = batch()
        model = dense_model(6, 3)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(inputs, labels, verbose=0)
        optimizer = model.optimizer
        state = [np.array(v) for v in (*model.weights, *optimizer.variables)]
        regularize(model)
        assert model.optimizer is optimizer
        for old, new in zip(state, (*model.weights, *optimizer.variables), strict=True):
            np.testing.assert_array_equal(old, np.array(new))

    def test_frozen_layers_have_no_energy_until_they_are_trainable(self):
        model = dense_model(6, 4)
        model.layers[0].trainable = False
        table = regularize(model)
        assert "frozen" in table.rows[0].note
        assert sum_of_losses(model) == pytest.approx(
            10 * energy_value(model.layers[1].kernel), rel=1e-5
        )
        model.layers[0].trainable = True
        assert len(model.losses) == 2

    @pytest.mark.parametrize(
        "policy",
        ["mixed_float16"]
        + [pytest.param(name, marks=pytest.mark.slow) for name in ("mixed_bfloat16", "bfloat16")],
    )
    def test_training_in_low_precision_stays_finite(self, policy):
        inputs, labels = batch()
        model = dense_model(6, 3, dtype=policy)
        regularize(model)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        assert np.isfinite(model.fit(inputs, labels, epochs=2, verbose=0).history["loss"]).all()
        assert all(np.isfinite(np.array(w, "float32")).all() for w in model.get_weights())

    @pytest.mark.parametrize(
        "options",
        [{"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 2}],
        ids=lambda options: next(iter(options)),
    )
    def test_gradient_accumulation_and_weight_averaging_include_the_energy(self, options):
        # The result must equal that of the same regularizers assigned to the kernels directly.
        inputs, labels = batch(8)
        keras.utils.set_random_seed(0)
        model, by_hand = dense_model(6, 3), dense_model(6, 3)
        by_hand.set_weights(model.get_weights())
        regularize(model)
        first, last = by_hand.layers
        first.kernel.regularizer = HalfSpaceMHE(1.0)
        last.kernel.regularizer = MHE(10.0)
        for each in (model, by_hand):
            each.compile(
                keras.optimizers.SGD(0.1, **options),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
            each.fit(inputs, labels, batch_size=2, shuffle=False, verbose=0)
        assert min(np.abs(weight).max() for weight in model.get_weights()) > 0
        for one, other in zip(model.get_weights(), by_hand.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class TestLoRA:
    def test_energy_is_that_of_the_effective_kernel(self):
        inputs, labels = batch()
        model = dense_model(6, 4)
        decay = keras.regularizers.L2(0.01)
        first = model.layers[0]
        first.enable_lora(2)
        first.lora_kernel_b.assign(normals(2, 6, seed=1))
        table = regularize(model, HalfSpaceMHE(1.0) + decay)
        assert "LoRA" in row_of(table, "dense_0").note
        assert not row_of(table, "dense_0").saved
        squares = sum(
            float(keras.ops.sum(factor**2)) for factor in (first.lora_kernel_a, first.lora_kernel_b)
        )
        expected = energy_value(first.kernel, **HALF) + 0.01 * squares
        expected += 10 * energy_value(model.layers[1].kernel)
        assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)

        frozen, factor = np.array(first._kernel), np.array(first.lora_kernel_b)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        loss = model.evaluate(inputs, labels, verbose=0)
        assert loss > expected
        model.fit(inputs, labels, verbose=0)
        np.testing.assert_array_equal(np.array(first._kernel), frozen)
        assert np.abs(np.array(first.lora_kernel_b) - factor).max() > 0

        regularize(model, HalfSpaceMHE(1.0) + decay)
        assert len(model.losses) == 3
        unregularize(model)
        assert isinstance(first.lora_kernel_a.regularizer, keras.regularizers.L2)

    def test_regularized_model_can_enable_lora_and_be_saved(self, tmp_path):
        model = dense_model(6, 4)
        regularize(model)
        model.layers[0].enable_lora(2)
        head = 10 * energy_value(model.layers[1].kernel)
        assert sum_of_losses(model) == pytest.approx(head, rel=1e-5)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert sum_of_losses(loaded) == pytest.approx(head, rel=1e-5)
        regularize(loaded)
        expected = head + energy_value(loaded.layers[0].kernel, **HALF)
        assert sum_of_losses(loaded) == pytest.approx(expected, rel=1e-5)


class TestAttention:
    def test_all_projections_are_skipped_if_one_is_ambiguous(self):
        # Three projections have equal numbers of heads, sizes and inputs: their axes are ambiguous.
        inputs = keras.Input((6, 4))
        attended = layers.MultiHeadAttention(4, 4, value_dim=5, name="attention")(inputs, inputs)
        model = keras.Model(inputs, layers.Dense(3)(attended))
        rows = [row for row in regularize(model).rows if row.layer == "attention"]
        assert {(row.role, row.action) for row in rows} == {("hidden", "skipped")}
        assert len(rows) == 4
        assert "does not tell inputs from outputs of the heads" in rows[-1].note


@pytest.mark.slow
@pytest.mark.once
def test_code_of_the_models_page_runs_and_gives_the_stated_results(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    names = {}
    blocks = r"```python\n(.*?)```(?:\n\nprints\n\n```text\n(.*?)```)?"
    for block, printed in re.findall(blocks, page, re.DOTALL):
        exec(block, names)
        output = capsys.readouterr().out
        assert not printed or output == printed
    assert tuple(names["wrapped"].get_layer("conv").state["projection"].shape) == (30, 49)
    assert len(names["model"].losses) == 2


class TestInvalidArguments:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: regularize(layers.Dense(3)), TypeError, "single layer"),
            (lambda: regularize(keras.Model), TypeError, "Expected a `keras.Model`"),
            (lambda: regularize(Subclassed()), ValueError, "not built"),
            (lambda: unregularize(Subclassed()), ValueError, "not built"),
            (lambda: regularize(dense_model(4), MHE), TypeError, r"`MHE\(\)`, not the class"),
            (
                lambda: regularize(dense_model(4), where="nothing"),
                ValueError,
                "model has dense_0.*'noth",
            ),
            (
                lambda: regularize(dense_model(4), where=lambda layer: False),
                ValueError,
                "not selected",
            ),
            (lambda: regularize(dense_model(4), where=4), TypeError, "names of layers.*where=4"),
            (lambda: regularize(keras.Sequential([layers.Flatten()])), ValueError, "has none"),
            (
                lambda: regularize(dense_model(4), MHP() + MHE()),
                ValueError,
                "one energy if it learns",
            ),
            (
                lambda: regularize(dense_model(4), output=CoMHE(projection=GroupProjection(9))),
                ValueError,
                "more coordinates than its projection has groups",
            ),
        ],
    )
    def test_invalid_arguments_raise_a_clear_error(self, call, error, message):
        with pytest.raises(error, match=message):
            call()

    def test_unbuilt_custom_layer_raises_a_clear_error(self):
        class Custom(layers.Layer):
            pass

        with pytest.raises(ValueError, match=r"custom.*Build the model first"):
            regularize(keras.Sequential([Custom(), layers.Dense(3)]))
