"""Whole models: every kernel found and given its energy, saved, taken off again."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from probes import normals, number

from keras_mhe import (
    MHE,
    MHP,
    AngleProjection,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    HypersphericalRegularization,
    regularize,
    unregularize,
)
from keras_mhe.regularizers import RegularizerSum

HALF = {"half_space": True}


def total(model):
    return float(sum(float(loss) for loss in model.losses))


def roles(table):
    return {f"{row.layer}/{row.kernel}": row.role for row in table.rows}


def row_of(table, layer):
    (row,) = [row for row in table.rows if row.layer == layer]
    return row


def transformer():
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
    """The same written out: every kernel, with its axes and groups by hand."""
    get = model.get_layer
    attention, grouped = get("attention"), get("grouped")
    into = {"neuron_axis": (1, 2), **HALF}
    out = {"neuron_axis": 2, **HALF}
    values = [number(get("tokens").embeddings, neuron_axis=0, **HALF)]
    for dense in (attention.query_dense, attention.key_dense, attention.value_dense):
        values.append(number(dense.kernel, **into))
    values.append(number(attention.output_dense.kernel, **out))
    projections = [part for part in vars(grouped).values() if isinstance(part, layers.EinsumDense)]
    for dense in projections:
        axes = out if dense.kernel.shape[:2] == (4, 3) else into
        values.append(number(dense.kernel, **axes))
    assert len(projections) == 4
    for direction in (get("both").forward_layer, get("both").backward_layer):
        values.append(number(direction.cell.kernel, groups=4, **HALF))
        values.append(number(direction.cell.recurrent_kernel, groups=4, **HALF))
    return sum(values) + 10 * number(get("head").kernel)


def convolutional(**last):
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
        number(get("grouped").kernel, groups=3, **HALF)
        + 0.01 * float(keras.ops.sum(get("grouped").kernel ** 2))
        + number(get("separable").pointwise_kernel, **HALF)
        + number(get("transposed").kernel, neuron_axis=-2, **HALF)
        + 10 * number(get("head").kernel)
    )


def dense(*units, dtype=None):
    stack = [keras.Input((8,))]
    stack += [layers.Dense(n, name=f"dense_{i}", dtype=dtype) for i, n in enumerate(units)]
    return keras.Sequential(stack)


def batch(count=16, classes=3):
    return normals(count, 8), np.arange(count) % classes


class Subclassed(keras.Model):
    """A model that says in Python what it does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(4, name="first"), layers.Dense(3, name="last")

    def call(self, inputs):
        return keras.ops.softmax(self.last(keras.ops.relu(self.first(inputs))))


class TestEveryKernelIsRegularized:
    @pytest.mark.parametrize(
        ("build", "energy"),
        [(transformer, transformer_energy), (convolutional, convolutional_energy)],
    )
    def test_by_the_sum_of_the_energies_written_out(self, build, energy):
        model = build()
        regularize(model)
        assert total(model) == pytest.approx(energy(model), rel=1e-5)

    def test_in_nested_models_and_once_where_a_layer_is_shared(self):
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
        expected = number(shared.kernel, **HALF) + number(inner.layers[0].kernel, **HALF)
        expected += 10 * number(model.get_layer("head").kernel)
        assert total(model) == pytest.approx(expected, rel=1e-5)

    def test_in_a_sequential_that_is_built_later(self):
        built, later = convolutional(), keras.Sequential(convolutional().layers[0:0])
        for layer in built.layers:
            later.add(type(layer).from_config(layer.get_config()))
        regularize(built)
        table = regularize(later)
        assert row_of(table, "head").role == "output"
        later.build((None, 8, 8, 3))
        later.set_weights(built.get_weights())
        assert total(later) == pytest.approx(total(built), rel=1e-6)

    def test_in_a_subclassed_model(self):
        model = Subclassed()
        model(normals(2, 8))
        table = regularize(model)
        assert roles(table) == {"first/kernel": "hidden", "last/kernel": "output"}
        assert total(model) == pytest.approx(
            number(model.first.kernel, **HALF) + 10 * number(model.last.kernel), rel=1e-5
        )

    def test_but_not_single_neurons_depthwise_or_quantized_kernels(self):
        model = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(6, name="quantized"),
                layers.Dense(1, name="single"),
                layers.Dense(5, name="line"),
            ]
        )
        model.layers[0].quantize("int8")
        table = regularize(convolutional())
        assert "do not compete" in row_of(table, "depthwise").note
        with pytest.raises(ValueError, match=r"quantized, int8.*one neuron.*one coordinate"):
            regularize(model)

    def test_and_depthwise_ones_where_asked(self):
        model = convolutional()
        regularize(model, where="depthwise")
        kernel = model.get_layer("depthwise").kernel
        l2 = 0.01 * float(keras.ops.sum(model.get_layer("grouped").kernel ** 2))
        expected = number(kernel, neuron_axis=(-2, -1), groups=6, **HALF)
        assert total(model) - l2 == pytest.approx(expected, rel=1e-4)

    def test_a_kernel_is_a_weight_and_not_what_else_has_its_name(self):
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

    def test_a_weight_of_two_layers_counts_once(self):
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
        assert total(model) == pytest.approx(
            number(embedding.embeddings, neuron_axis=0, **HALF), rel=1e-5
        )

    def test_and_the_table_lists_what_it_cannot_read(self):
        class Positions(layers.Layer):
            def build(self, shape):
                self.table = self.add_weight(shape=shape[1:], name="positions")

            def call(self, inputs):
                return inputs + self.table

        model = keras.Sequential([keras.Input((4, 8)), Positions(), layers.Dense(3)])
        (row,) = [row for row in regularize(model).rows if row.kernel == "positions"]
        assert row.role == "skipped"
        assert row.note == "its neurons are not known"


class TestWhere:
    def test_takes_names_paths_and_predicates(self):
        chosen = {
            "dense_1": {"dense_1"},
            ("dense_0", "dense_2"): {"dense_0", "dense_2"},
        }
        for where, names in chosen.items():
            table = regularize(dense(6, 5, 4), where=where)
            assert {row.layer for row in table.rows if row.role != "skipped"} == names
        table = regularize(dense(6, 5, 4), where=lambda layer: layer.units > 4)
        assert [row.role for row in table.rows] == ["hidden", "hidden", "skipped"]

    def test_none_leaves_hidden_or_output_layers_alone(self):
        assert list(roles(regularize(dense(6, 4), hidden=None)).values()) == ["skipped", "output"]
        assert list(roles(regularize(dense(6, 4), output=None)).values()) == ["hidden", "skipped"]

    def test_a_users_own_axes_come_first(self):
        model = dense(6, 4)
        regularize(model, HalfSpaceMHE(1.0, neuron_axis=0), output=None)
        expected = number(model.layers[0].kernel, neuron_axis=0, **HALF)
        assert total(model) == pytest.approx(expected, rel=1e-5)


class TestExistingRegularizers:
    def test_of_keras_stay_and_are_not_added_twice(self):
        decay = keras.regularizers.L2(0.01)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=decay)])
        bare = total(model)
        table = regularize(model)
        once = total(model)
        assert once == pytest.approx(bare + 10 * number(model.layers[0].kernel), rel=1e-5)
        assert "beside L2" in table.rows[0].note
        regularize(model)
        regularize(model, output=MHE(10.0) + keras.regularizers.L2(0.01))
        assert total(model) == pytest.approx(once, rel=1e-6)
        unregularize(model)
        assert model.layers[0].kernel.regularizer is decay
        assert model.layers[0].kernel_regularizer is decay

    def test_without_an_energy_are_left_alone(self):
        both = keras.regularizers.L1(0.01), keras.regularizers.L2(0.02)
        own = RegularizerSum(both)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=own)])
        assert unregularize(model).rows == []
        assert model.layers[0].kernel_regularizer is own

    def test_of_this_package_give_way(self):
        model = dense(6, 4)
        regularize(model)
        before = total(model)
        table = regularize(model, HalfSpaceMHE(0.5), MHE(5.0))
        assert total(model) == pytest.approx(before / 2, rel=1e-6)
        assert "in place of HalfSpaceMHE(1)" in table.rows[0].note

    def test_what_loses_its_energy_is_as_keras_alone_would_have_it(self):
        norms = keras.regularizers.L1(0.01), keras.regularizers.L2(0.02)
        model = dense(6, 4)
        regularize(model, MHE(1.0) + norms[0], MHE(1.0) + norms[0] + norms[1])
        unregularize(model)
        assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L1)
        both = model.layers[1].kernel_regularizer
        assert type(both) is keras.regularizers.L1L2
        assert (both.l1, both.l2) == pytest.approx((0.01, 0.02))


class TestTraining:
    def test_an_already_fitted_model_counts_it_in_the_next_fit(self):
        inputs, labels = batch()
        keras.utils.set_random_seed(0)
        model, fresh = dense(6, 3), dense(6, 3)
        fresh.set_weights(model.get_weights())
        for each in (model, fresh):
            each.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        before = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        evaluated = model.evaluate(inputs, labels, batch_size=16, verbose=0)
        regularize(model)
        energy = total(model)
        after = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        assert after == pytest.approx(before + energy, rel=1e-5)
        again = model.evaluate(inputs, labels, batch_size=16, verbose=0)
        assert again == pytest.approx(evaluated + energy, rel=1e-5)
        unregularize(model)
        bare = model.fit(inputs, labels, batch_size=16, verbose=0).history["loss"][0]
        assert bare == pytest.approx(before, rel=1e-6)

    def test_a_callback_may_change_factors(self):
        inputs, labels = batch()
        model = dense(6, 3)
        regularize(model)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        change = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: regularize(model, None, MHE(20.0 + epoch))
        )
        losses = model.fit(
            inputs, labels, batch_size=16, epochs=2, verbose=0, callbacks=[change]
        ).history["loss"]
        more = 10 * number(model.layers[1].kernel)
        assert losses[1] - losses[0] == pytest.approx(more, rel=1e-4)

    def test_it_keeps_weights_and_the_optimizers_memory(self):
        inputs, labels = batch()
        model = dense(6, 3)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(inputs, labels, verbose=0)
        optimizer = model.optimizer
        state = [np.array(v) for v in (*model.weights, *optimizer.variables)]
        regularize(model)
        assert model.optimizer is optimizer
        for old, new in zip(state, (*model.weights, *optimizer.variables), strict=True):
            np.testing.assert_array_equal(old, np.array(new))

    def test_frozen_layers_add_nothing_until_they_are_trainable(self):
        model = dense(6, 4)
        model.layers[0].trainable = False
        table = regularize(model)
        assert "frozen" in table.rows[0].note
        assert total(model) == pytest.approx(10 * number(model.layers[1].kernel), rel=1e-5)
        model.layers[0].trainable = True
        assert len(model.losses) == 2

    @pytest.mark.parametrize(
        "policy",
        ["mixed_float16"]
        + [pytest.param(name, marks=pytest.mark.slow) for name in ("mixed_bfloat16", "bfloat16")],
    )
    def test_in_low_precision(self, policy):
        inputs, labels = batch()
        model = dense(6, 3, dtype=policy)
        regularize(model)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        assert np.isfinite(model.fit(inputs, labels, epochs=2, verbose=0).history["loss"]).all()
        assert all(np.isfinite(np.array(w, "float32")).all() for w in model.get_weights())

    @pytest.mark.parametrize(
        "options",
        [{"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 2}],
        ids=lambda options: next(iter(options)),
    )
    def test_with_optimizers_that_gather_steps(self, options):
        # Four halves of a step, or means of weights: with the energy as with a gradient by hand.
        inputs, labels = batch(8)
        keras.utils.set_random_seed(0)
        model, by_hand = dense(6, 3), dense(6, 3)
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
        moved = [np.abs(new).max() for new in model.get_weights()]
        assert min(moved) > 0
        for one, other in zip(model.get_weights(), by_hand.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class TestSaving:
    @pytest.mark.parametrize("build", [transformer, convolutional])
    def test_all_of_it_comes_back(self, build, tmp_path):
        model = build()
        table = regularize(model)
        assert all(row.saved for row in table.rows if row.role != "skipped")
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert len(loaded.losses) == len(model.losses)
        assert total(loaded) == pytest.approx(total(model), rel=1e-6)
        assert total(keras.models.clone_model(model)) > 0
        regularize(loaded)
        assert total(loaded) == pytest.approx(total(model), rel=1e-6)

    def test_or_the_table_says_for_which_kernels_it_does_not(self, tmp_path):
        @keras.saving.register_keras_serializable(package="test_models")
        class Block(layers.Layer):
            """Its config says nothing of the layer inside, which has the name of one outside."""

            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.units, self.inner = units, layers.Dense(units, name="inner")

            def build(self, input_shape):
                self.inner.build(input_shape)

            def call(self, inputs):
                return self.inner(inputs)

            def get_config(self):
                return {**super().get_config(), "units": self.units}

        inputs = keras.Input((8,))
        x = layers.LayerNormalization()(Block(6, name="block")(inputs))
        model = keras.Model(inputs, layers.Dense(3, name="head")(x))
        table = regularize(model)
        inner, head = row_of(table, "block/inner"), row_of(table, "head")
        assert (inner.saved, head.saved) == (False, True)
        assert "after loading" in inner.note
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert len(loaded.losses) == 1
        regularize(loaded)
        assert total(loaded) == pytest.approx(total(model), rel=1e-6)

    @pytest.mark.slow
    @pytest.mark.once
    def test_without_energies_it_loads_without_this_package(self, tmp_path):
        model = keras.Sequential(
            [
                keras.Input((6, 8)),
                HypersphericalRegularization(layers.Dense(6, kernel_regularizer="l2"), MHP()),
                layers.LSTM(5),
                layers.Dense(3),
            ]
        )
        regularize(model)
        bare = unregularize(model).model
        bare.save(tmp_path / "model.keras")
        inputs = normals(2, 6, 8)
        np.save(tmp_path / "inputs.npy", inputs)
        program = (
            "import sys, keras, numpy as np\n"
            "model = keras.models.load_model('model.keras')\n"
            "np.save('outputs.npy', model.predict(np.load('inputs.npy'), verbose=0))\n"
            "assert 'keras_mhe' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
        outputs = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs, rtol=1e-5)


class TestRegularizersThatLearn:
    def test_come_in_a_model_of_the_same_layers_with_wrappers(self, tmp_path):
        inputs, labels = batch()
        block = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="inner")], name="block")
        first = layers.Dense(8, name="first")
        start = keras.Input((8,))
        end = layers.Dense(3, name="head")(block(first(first(start))))
        model = keras.Model(start, end)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(inputs, labels, verbose=0)
        before = model.predict(inputs, verbose=0)
        velocity = [np.array(v) for v in model.optimizer.variables]

        table = regularize(model, CoMHE(projection=AngleProjection(3)))
        assert roles(table) == {
            "first/kernel": "hidden",
            "block/inner/kernel": "hidden",
            "head/kernel": "output",
        }
        assert all(row.saved for row in table.rows)
        new = table.model
        assert isinstance(new.get_layer("first"), HypersphericalRegularization)
        assert new.get_layer("first").layer is first
        np.testing.assert_allclose(new.predict(inputs, verbose=0), before, rtol=1e-6)
        for old, own in zip(velocity, new.optimizer.variables, strict=True):
            np.testing.assert_array_equal(old, np.array(own))
        assert len(new.losses) == 3

        projection = new.get_layer("first").state["projection"]
        start = np.array(projection)
        new.fit(inputs, labels, epochs=2, verbose=0)
        assert np.abs(np.array(projection) - start).max() > 0
        # The given model has the same weights, and its file none of the wrappers.
        np.testing.assert_allclose(
            new.predict(inputs, verbose=0), model.predict(inputs, verbose=0), rtol=1e-6
        )
        new.save(tmp_path / "new.keras")
        loaded = keras.models.load_model(tmp_path / "new.keras")
        assert total(loaded) == pytest.approx(total(new), rel=1e-5)
        assert [row.note for row in regularize(loaded, MHP(), None).rows].count(
            "wrapped already"
        ) == 2

        bare = unregularize(loaded).model
        assert bare.losses == []
        np.testing.assert_allclose(
            bare.predict(inputs, verbose=0), new.predict(inputs, verbose=0), rtol=1e-5
        )

    @pytest.mark.slow
    def test_both_models_go_on_training_and_saving(self, tmp_path):
        inputs, labels = batch()
        model = dense(6, 3)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(inputs, labels, verbose=0)
        new = regularize(model, MHP()).model
        new.fit(inputs, labels, verbose=0)
        model.save(tmp_path / "model.keras")
        model.fit(inputs, labels, verbose=0)
        bare = unregularize(new).model
        bare.fit(inputs, labels, verbose=0)
        new.fit(inputs, labels, verbose=0)
        # Bare, it has taken the kernels from the wrappers; asked for again, they have them back.
        assert len(new.losses) == 0
        regularize(new, MHP(), None)
        assert len(new.losses) == len(model.losses) == 1
        assert [row.role for row in unregularize(model).rows] == ["removed"]
        assert len(new.losses) == len(model.losses) == 0

    @pytest.mark.slow
    def test_keep_the_optimizers_memory_in_mixed_precision(self):
        inputs, labels = batch()
        model = dense(6, 3, dtype="mixed_float16")
        model.compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(inputs, labels, verbose=0)
        table = regularize(model, MHP(), MHP())
        assert "afresh" not in table.title
        own = table.model.optimizer.variables
        for old, new in zip(model.optimizer.variables, own, strict=True):
            np.testing.assert_array_equal(np.array(old), np.array(new), err_msg=old.path)
        table.model.fit(inputs, labels, verbose=0)

    def test_thaw_with_the_layers_that_they_wrap(self):
        model = dense(6, 3)
        model.trainable = False
        new = regularize(model, MHP(), MHP()).model
        assert new.losses == []
        new.trainable = True
        assert len(new.trainable_weights) == 4
        assert len(new.losses) == 2

    def test_come_without_compile_where_that_cannot_be_copied(self):
        inputs, labels = batch()
        model = dense(6, 3)
        regularize(model)
        model.compile("sgd", lambda y, p: keras.ops.mean(p, axis=-1))
        model.fit(inputs, labels, verbose=0)
        table = regularize(model, MHP())
        assert "Compile it" in table.title
        assert not table.model.compiled
        assert model.compiled

    def test_leave_the_model_as_it_was_where_they_fail(self):
        class Own(keras.Model):
            def __init__(self, units):
                inputs = keras.Input((8,))
                super().__init__(inputs, layers.Dense(units)(layers.Dense(6)(inputs)))
                self.units = units

        model = Own(3)
        regularize(model)
        before = total(model)
        with pytest.raises((TypeError, ValueError)):
            regularize(model, MHP(), MHE(3.0))
        assert total(model) == pytest.approx(before, rel=1e-6)
        assert [type(layer.kernel_regularizer) for layer in model.layers[1:]] == [HalfSpaceMHE, MHE]

    def test_inside_other_wrappers_are_taken_off_where_they_are_made(self):
        inner = HypersphericalRegularization(layers.Dense(5), MHE())
        model = keras.Sequential([keras.Input((4, 8)), layers.TimeDistributed(inner)])
        (row,) = unregularize(model).rows
        assert row.role == "skipped"
        assert len(model.losses) == 1

    def test_replace_energies_and_leave_other_regularizers(self):
        decay = keras.regularizers.L2(0.01)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=decay)])
        regularize(model)
        new = regularize(model, output=MHP(1.0) + keras.regularizers.L2(0.01)).model
        (loss,) = new.losses
        kernel = model.layers[0].kernel
        pole = np.array(new.layers[0].state["pole"])
        unit = np.array(kernel) / np.linalg.norm(np.array(kernel), axis=0)
        cosine = unit.T @ pole / np.linalg.norm(pole)
        expected = -np.mean(1 / (2 - 2 * cosine)) + 0.01 * np.sum(np.array(kernel) ** 2)
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        assert unregularize(new).model.layers[0].kernel.regularizer is decay

    def test_are_explained_where_a_layer_cannot_be_wrapped(self):
        model = Subclassed()
        model(normals(2, 8))
        with pytest.raises(ValueError, match=r"learns: wrap the layer where it is made"):
            regularize(model, MHP(), None)

    def test_take_all_kernels_of_a_layer_or_none(self):
        model = keras.Sequential(
            [keras.Input((6, 1)), layers.SimpleRNN(4, name="rnn"), layers.Dense(4, name="head")]
        )
        table = regularize(model, MHP(), MHE(10.0))
        assert [row.role for row in table.rows] == ["skipped", "skipped", "output"]
        assert (
            "all its kernels or none, and kernel: neurons of one coordinate" in table.rows[1].note
        )


class TestLoRA:
    def test_the_kernel_in_effect_is_regularized(self):
        inputs, labels = batch()
        model = dense(6, 4)
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
        expected = number(first.kernel, **HALF) + 0.01 * squares
        expected += 10 * number(model.layers[1].kernel)
        assert total(model) == pytest.approx(expected, rel=1e-5)

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

    def test_a_regularized_model_can_be_given_lora_and_saved(self, tmp_path):
        model = dense(6, 4)
        regularize(model)
        model.layers[0].enable_lora(2)
        head = 10 * number(model.layers[1].kernel)
        assert total(model) == pytest.approx(head, rel=1e-5)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert total(loaded) == pytest.approx(head, rel=1e-5)
        regularize(loaded)
        expected = head + number(loaded.layers[0].kernel, **HALF)
        assert total(loaded) == pytest.approx(expected, rel=1e-5)


class TestAttention:
    def test_is_regularized_whole_or_not(self):
        # The shape of three projections tells nothing: heads, sizes and inputs are equal.
        inputs = keras.Input((6, 4))
        attended = layers.MultiHeadAttention(4, 4, value_dim=5, name="attention")(inputs, inputs)
        model = keras.Model(inputs, layers.Dense(3)(attended))
        rows = [row for row in regularize(model).rows if row.layer == "attention"]
        assert [row.role for row in rows] == ["skipped"] * 4
        assert "must tell inputs from heads" in rows[-1].note


class TestTable:
    def test_says_in_80_columns_what_was_done(self):
        table = regularize(transformer())
        text = repr(table)
        assert max(map(len, text.splitlines())) <= 80
        assert text.startswith("Kernels regularized: 14 of 14.")
        row = row_of(table, "head")
        assert (row.groups, row.dimension, row.neurons, row.shape) == (1, 8, 5, (8, 5))
        assert {row.groups for row in table.rows if row.layer == "both"} == {4}

    def test_tells_where_a_sample_would_be_cheaper(self):
        model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9000, 4)])
        assert "sample" in regularize(model).rows[0].note
        assert "sample" not in regularize(model, MHE(sample=64), MHE(sample=64)).rows[0].note


@pytest.mark.slow
@pytest.mark.once
def test_the_page_about_whole_models_does_what_it_says():
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert tuple(names["wrapped"].get_layer("conv").state["projection"].shape) == (30, 49)
    assert len(names["model"].losses) == 2


class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: regularize(layers.Dense(3)), TypeError, "single layer"),
            (lambda: regularize(keras.Model), TypeError, "Expected a `keras.Model`"),
            (lambda: regularize(Subclassed()), ValueError, "not built"),
            (lambda: unregularize(Subclassed()), ValueError, "not built"),
            (lambda: regularize(dense(4), MHE), TypeError, r"`MHE\(\)`, not the class"),
            (lambda: regularize(dense(4), "l2"), TypeError, "Expected a regularizer of keras_mhe"),
            (lambda: regularize(dense(4), keras.regularizers.L2()), TypeError, "its sum"),
            (lambda: regularize(dense(4), where="nothing"), ValueError, "model has dense_0.*'noth"),
            (lambda: regularize(dense(4), where=lambda layer: False), ValueError, "does not ask"),
            (lambda: regularize(dense(4), where=4), TypeError, "names of layers.*where=4"),
            (lambda: regularize(keras.Sequential([layers.Flatten()])), ValueError, "has none"),
            (lambda: regularize(dense(4), MHP() + MHE()), ValueError, "one energy if it learns"),
            (
                lambda: regularize(dense(4), output=CoMHE(projection=GroupProjection(9))),
                ValueError,
                "coordinate for each of the groups",
            ),
        ],
    )
    def test_ends_in_a_sentence_that_says_what_to_do(self, call, error, message):
        with pytest.raises(error, match=message):
            call()

    def test_a_layer_whose_kernels_are_unknown_before_it_is_built(self):
        class Custom(layers.Layer):
            pass

        with pytest.raises(ValueError, match=r"custom.*Build the model first"):
            regularize(keras.Sequential([Custom(), layers.Dense(3)]))
