"""`FactorSchedule`: factors of bare and wrapped regularizers, by epoch and by step."""

import itertools

import keras
import numpy as np
import pytest
from helpers import normals, on_compiled_and_other_steps
from keras import layers

from keras_mhe import (
    MHE,
    CoMHE,
    FactorSchedule,
    HalfSpaceMHE,
    HypersphericalRegularization,
    Uniformity,
    batch_energy,
    energy_report,
    hyperspherical_energy,
    regularize,
)

X, Y = normals(24, 8), np.arange(24) % 3
# Three steps in each epoch.
FIT = {"batch_size": 8, "verbose": 0}


def scalar(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def network(hidden=None, output=None, **options):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, kernel_regularizer=hidden, name="hidden"),
            layers.Dense(3, kernel_regularizer=output, name="head", **options),
        ]
    )


def compiled(model, rate=0.0, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, **options)
    return model


def fit(model, schedule, epochs=3, **options):
    callbacks = schedule if isinstance(schedule, list) else [schedule]
    return model.fit(X, Y, epochs=epochs, callbacks=callbacks, **FIT, **options).history


def penalties(history):
    """The losses of epochs beside that of the first, whose factors are zero. No step changes it."""
    return np.array(history["loss"]) - history["loss"][0]


def linear(epoch):
    return 2.0 * epoch


class TestRegularizers:
    """`loss = schedule(epoch) * energy`, wherever the regularizer is."""

    @on_compiled_and_other_steps
    def test_bare_regularizer(self, jit_compile):
        model = compiled(network(output=MHE(7.0)), jit_compile=jit_compile)
        history = fit(model, FactorSchedule(linear))
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        np.testing.assert_allclose(penalties(history), energy * np.array([0, 2, 4]), rtol=1e-5)
        assert history["factor"] == [0.0, 2.0, 4.0]

    def test_other_terms_of_a_sum_stay(self):
        both = MHE(7.0) + keras.regularizers.L2(0.5)
        model = compiled(network(output=both))
        plain = compiled(network())
        plain.set_weights(model.get_weights())
        history = fit(model, FactorSchedule(linear))
        head = model.get_layer("head").kernel
        energy, l2 = scalar(hyperspherical_energy(head)), scalar(both.regularizers[1](head))
        expected = plain.evaluate(X, Y, **FIT) + l2 + energy * np.array([0, 2, 4])
        np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        "regularizer", [MHE(7.0), CoMHE(projection="angle")], ids=["MHE", "CoMHE"]
    )
    def test_wrapped_regularizer(self, regularizer):
        wrapper = HypersphericalRegularization(layers.Dense(6), regularizer)
        model = compiled(keras.Sequential([keras.Input((8,)), wrapper, layers.Dense(3)]))
        fit(model, FactorSchedule(linear))
        assert float(wrapper.factor) == 4.0

    def test_regularizer_of_a_layer_within_a_wrapper(self):
        layer = layers.Dense(3, kernel_regularizer=MHE(7.0))
        wrapper = HypersphericalRegularization(layer, HalfSpaceMHE(5.0))
        model = compiled(keras.Sequential([keras.Input((8,)), wrapper]))
        history = fit(model, FactorSchedule(lambda epoch, factor: factor * epoch))
        energy = 7 * scalar(hyperspherical_energy(layer.kernel))
        energy += 5 * scalar(hyperspherical_energy(layer.kernel, half_space=True))
        np.testing.assert_allclose(penalties(history), energy * np.arange(3), rtol=1e-5)

    def test_energy_of_batches(self):
        layer = Uniformity(MHE(7.0))
        model = compiled(keras.Sequential([keras.Input((8,)), layer, layers.Dense(3)]))
        history = fit(model, FactorSchedule(linear), shuffle=False)
        energy = np.mean([scalar(batch_energy(part)) for part in np.split(X, 3)])
        np.testing.assert_allclose(penalties(history), energy * np.array([0, 2, 4]), rtol=1e-5)

    def test_attention_and_low_rank_factors(self):
        inputs = keras.Input((4, 8))
        attention = layers.MultiHeadAttention(2, 4, name="attention")
        head = layers.Dense(3, name="head")
        outputs = head(layers.Flatten()(attention(inputs, inputs)))
        model = keras.Model(inputs, outputs)
        head.enable_lora(2)
        regularize(model)
        before = sum(map(scalar, model.losses))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        schedule = FactorSchedule(lambda epoch, factor: 2 * factor)
        model.fit(normals(8, 4, 8), normals(8, 3), verbose=0, callbacks=[schedule])
        assert sum(map(scalar, model.losses)) == pytest.approx(2 * before, rel=1e-5)

    def test_regularized_model_without_regularizers_in_its_code(self):
        model = compiled(network())
        regularize(model)
        history = fit(model, FactorSchedule(lambda epoch, factor: factor * epoch))
        assert history["factor_1"] == [0.0, 1.0, 2.0]
        assert history["factor_10"] == [0.0, 10.0, 20.0]
        # A second call of `regularize` gives numbers again.
        regularize(model, hidden=None, output=MHE(3.0))
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        assert scalar(model.losses[1]) == pytest.approx(3 * energy, rel=1e-5)

    def test_weight_of_an_own_layer(self):
        class Codes(layers.Layer):
            def build(self, shape):
                self.codes = self.add_weight(shape=(shape[-1], 3), regularizer=MHE(7.0))

            def call(self, x):
                return x @ self.codes

        model = compiled(keras.Sequential([keras.Input((8,)), Codes(name="codes")]))
        history = fit(model, FactorSchedule(linear, where="codes"))
        energy = scalar(hyperspherical_energy(model.layers[0].codes))
        np.testing.assert_allclose(penalties(history), energy * np.array([0, 2, 4]), rtol=1e-5)


class TestSelection:
    def test_where_selects_layers(self):
        model = compiled(network(HalfSpaceMHE(1.0), MHE(10.0)))
        schedules = [
            FactorSchedule(lambda epoch: 0.0, where="hidden"),
            FactorSchedule(lambda epoch: 5.0, where=lambda layer: layer.name == "head"),
        ]
        fit(model, schedules)
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        assert [scalar(loss) for loss in model.losses] == pytest.approx([0.0, 5 * energy], rel=1e-5)

    def test_one_regularizer_of_two_layers_gets_two_factors(self):
        shared = MHE(1.0)
        model = compiled(network(shared, shared))
        fit(model, FactorSchedule(lambda epoch: 5.0, where="head"))
        kernels = [layer.kernel for layer in model.layers]
        expected = np.array([scalar(hyperspherical_energy(kernel)) for kernel in kernels]) * [1, 5]
        np.testing.assert_allclose([scalar(loss) for loss in model.losses], expected, rtol=1e-5)
        assert shared.factor_variable is None

    def test_layers_within_layers_have_paths(self):
        backbone = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="inner")], name="back")
        backbone.layers[0].kernel.regularizer = MHE(1.0)
        model = compiled(keras.Sequential([keras.Input((8,)), backbone, layers.Dense(3)]))
        for name in ("back", "inner", "back/inner"):
            fit(model, FactorSchedule(lambda epoch: 0.0, where=name), epochs=1)
            assert scalar(sum(model.losses)) == 0.0
            fit(model, FactorSchedule(lambda epoch: 1.0), epochs=1)

    def test_a_later_training_can_group_factors_anew(self):
        model = compiled(network(MHE(1.0), MHE(1.0)))
        fit(model, FactorSchedule(lambda epoch: 3.0))
        fit(model, FactorSchedule(lambda epoch: 5.0, where="head"))
        kernels = [layer.kernel for layer in model.layers]
        expected = np.array([scalar(hyperspherical_energy(kernel)) for kernel in kernels]) * [3, 5]
        np.testing.assert_allclose([scalar(loss) for loss in model.losses], expected, rtol=1e-5)


class TestPublicSituations:
    """What users of Keras asked for: keras-team/keras, issues 4813, 8793 and 13301."""

    def test_penalty_of_keras_changes_by_epoch(self):
        """Issues 4813 and 13301: change `l1_l2` during training."""
        model = compiled(network(output=keras.regularizers.L1L2(0.1, 0.2)))
        penalty = scalar(model.losses[0])
        schedule = FactorSchedule(linear, regularizers=keras.regularizers.L1L2)
        np.testing.assert_allclose(
            penalties(fit(model, schedule)), penalty * np.array([0, 2, 4]), rtol=1e-5
        )
        # The layer keeps what a file contains.
        assert model.get_layer("head").kernel_regularizer.l1 == pytest.approx(0.1)

    def test_own_regularizer_changes_every_few_epochs(self):
        """Issue 8793: the constant of an own regularizer, after a number of epochs."""

        class Own(keras.regularizers.Regularizer):
            def __call__(self, weight):
                return 0.01 * keras.ops.sum(keras.ops.abs(weight))

        own = Own()
        model = compiled(network(hidden=Own(), output=own))
        _, penalty = map(scalar, model.losses)
        schedule = FactorSchedule(lambda epoch: float(epoch // 2), regularizers=own)
        np.testing.assert_allclose(
            penalties(fit(model, schedule, epochs=4)), penalty * np.array([0, 0, 1, 1]), atol=1e-6
        )

    def test_energies_and_penalties_move_apart(self):
        model = compiled(network(output=MHE(7.0) + keras.regularizers.L2(0.5)))
        head = model.get_layer("head").kernel
        energy, l2 = scalar(hyperspherical_energy(head)), 0.5 * scalar(keras.ops.sum(head**2))
        schedules = [
            FactorSchedule(lambda epoch: 3.0 * epoch),
            FactorSchedule(linear, regularizers=[keras.regularizers.L2]),
        ]
        expected = np.array([0, 3 * energy + 2 * l2, 6 * energy + 4 * l2])
        np.testing.assert_allclose(penalties(fit(model, schedules)), expected, rtol=1e-5)


class TestSteps:
    class Record(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.losses = []

        def on_train_batch_end(self, batch, logs=None):
            self.losses.append(sum(map(scalar, self.model.losses)))

    @on_compiled_and_other_steps
    def test_factor_of_each_step_is_that_of_the_schedule(self, jit_compile):
        model = compiled(network(output=MHE(7.0)), jit_compile=jit_compile)
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        decay = keras.optimizers.schedules.PolynomialDecay(9.0, 9, 0.0)
        record = self.Record()
        fit(model, [FactorSchedule(decay), record], epochs=2)
        np.testing.assert_allclose(record.losses, energy * np.arange(9, 3, -1), rtol=1e-5)
        # A further training continues where the first one stopped.
        fit(model, [FactorSchedule(decay), record], epochs=1)
        np.testing.assert_allclose(record.losses, energy * np.arange(3, 0, -1), rtol=1e-5)

    def test_steps_are_updates_of_the_optimizer(self):
        model = network(output=MHE(7.0))
        optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=3)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        record = self.Record()
        decay = keras.optimizers.schedules.PolynomialDecay(9.0, 9, 0.0)
        fit(model, [FactorSchedule(decay), record], epochs=2)
        np.testing.assert_allclose(record.losses, energy * np.repeat([9, 8], 3), rtol=1e-5)

    @pytest.mark.slow
    def test_training_is_that_of_a_constant_factor_until_the_factor_changes(self):
        """No step, and no update of the optimizer, of metrics or of seeds is lost or repeated."""

        def train(regularizer, callbacks):
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.Input((8,)),
                    layers.Dense(6),
                    layers.BatchNormalization(),
                    layers.Dropout(0.5, seed=1),
                    layers.Dense(3, kernel_regularizer=regularizer),
                ]
            )
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"])
            history = fit(model, callbacks, epochs=2, shuffle=False)
            history.pop("factor", None)
            variables = [*model.variables, *model.optimizer.variables]
            # The variable of the schedule is state as well.
            values = [keras.ops.convert_to_numpy(x) for x in variables if x.name != "factor"]
            return history, values

        # The factor moves before each step, by less than a loss can show.
        nearly = keras.optimizers.schedules.PolynomialDecay(7.0, 10**5, 6.9, power=1)
        expected_history, expected = train(MHE(7.0), [])
        history, values = train(MHE(1.0), FactorSchedule(nearly))
        assert history.keys() == expected_history.keys()
        for name, value in expected_history.items():
            np.testing.assert_allclose(history[name], value, rtol=1e-4)
        for value, other in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-4)

    def test_model_is_read_only_before_a_factor_changes(self):
        """On JAX, Keras then collects the state of the step, which takes time for each weight."""

        reads = set()

        class Recorded(FactorSchedule):
            @property
            def model(self):
                reads.add(self._next)
                return super().model

        model = compiled(network(output=MHE(7.0)), rate=0.1)
        halved = keras.optimizers.schedules.PiecewiseConstantDecay([3], [8.0, 4.0])
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[Recorded(halved)])
        assert reads == {0, 1, 5}

    def test_own_schedule_sees_the_current_weights(self):
        """On JAX, weights are outside of their variables within an epoch."""

        seen = []

        class Watching(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                seen.append(np.array(keras.ops.convert_to_numpy(head.kernel)))
                return 0.0

            def get_config(self):
                return {}

        model = compiled(network(output=MHE(7.0)), rate=0.1)
        head = model.get_layer("head")
        fit(model, FactorSchedule(Watching()), epochs=1)
        now = np.array(keras.ops.convert_to_numpy(head.kernel))
        steps = [*seen, now]
        assert len(steps) == 4
        assert all(np.abs(new - old).max() > 1e-4 for old, new in itertools.pairwise(steps))

    @pytest.mark.slow
    def test_factor_changes_between_executions(self):
        model = compiled(network(output=MHE(7.0)), steps_per_execution=3)
        schedule = FactorSchedule(keras.optimizers.schedules.PolynomialDecay(9.0, 9, 0.0))
        assert fit(model, schedule, epochs=3)["factor"] == pytest.approx([9.0, 6.0, 3.0])


class TestModel:
    """The model stays as it is for everything but its training."""

    def test_weights_and_optimizer_stay(self):
        model = compiled(network(output=MHE(7.0)), rate=0.1)
        names = [weight.path for weight in model.weights]
        fit(model, FactorSchedule(linear))
        assert [weight.path for weight in model.weights] == names
        assert [weight.path for weight in model.trainable_weights] == names
        model.set_weights(model.get_weights())

    @pytest.mark.parametrize("file", ["model.keras", "model.h5", "model.weights.h5"])
    def test_files_written_during_training_are_those_of_the_plain_model(self, tmp_path, file):
        model = compiled(network(output=MHE(7.0)), rate=0.1)
        only_weights = "weights" in file
        checkpoint = keras.callbacks.ModelCheckpoint(
            tmp_path / file, save_weights_only=only_weights
        )
        fit(model, [FactorSchedule(linear), checkpoint])
        if only_weights:
            loaded = network(output=MHE(7.0))
            loaded.load_weights(tmp_path / file)
        else:
            loaded = keras.saving.load_model(tmp_path / file)
        for weight, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        energy = scalar(hyperspherical_energy(loaded.get_layer("head").kernel))
        assert scalar(loaded.losses[0]) == pytest.approx(7 * energy, rel=1e-5)
        fit(compiled(loaded), FactorSchedule(linear))
        assert scalar(loaded.losses[0]) == pytest.approx(4 * energy, rel=1e-5)

    def test_best_weights_can_be_restored(self):
        model = compiled(network(output=MHE(7.0)), rate=0.1)
        stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True, patience=1)
        fit(model, [FactorSchedule(lambda epoch: 5.0 * epoch), stop], epochs=4)
        assert stop.best_epoch == 0

    def test_clone_has_the_number(self):
        model = compiled(network(output=MHE(7.0)))
        fit(model, FactorSchedule(linear))
        clone = keras.models.clone_model(model)
        assert clone.get_layer("head").kernel_regularizer.get_config() == MHE(7.0).get_config()
        assert energy_report(model).rows[0].name == "hidden"

    def test_evaluation_has_the_last_factor(self):
        model = compiled(network(output=MHE(7.0)))
        history = fit(model, FactorSchedule(linear), validation_data=(X, Y))
        assert history["val_loss"] == pytest.approx(history["loss"], rel=1e-5)
        assert model.evaluate(X, Y, **FIT) == pytest.approx(history["loss"][-1], rel=1e-5)

    def test_resumed_training_continues_the_schedule(self):
        model = compiled(network(output=MHE(7.0)))
        schedule = FactorSchedule(linear)
        assert fit(model, schedule, epochs=5, initial_epoch=3)["factor"] == [6.0, 8.0]

    def test_second_training_compiles_nothing_anew(self):
        model = compiled(network(output=MHE(7.0)))
        fit(model, FactorSchedule(linear))
        step = model.train_function
        fit(model, FactorSchedule(linear))
        assert model.train_function is step

    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = compiled(network(output=MHE(7.0)))
        finally:
            keras.config.set_dtype_policy("float32")
        fit(model, FactorSchedule(lambda epoch: 1.0 + 2.0**-12))
        energy = scalar(hyperspherical_energy(model.get_layer("head").kernel))
        assert scalar(model.losses[0]) == pytest.approx((1 + 2.0**-12) * energy, rel=1e-6)


class TestErrors:
    @pytest.mark.parametrize("schedule", [1.0, None, "linear", keras.callbacks.Callback])
    def test_schedule_must_be_a_function(self, schedule):
        with pytest.raises(TypeError, match="Invalid value for argument `schedule`"):
            FactorSchedule(schedule)

    def test_regularizers_must_be_regularizers(self):
        with pytest.raises(TypeError, match="Invalid value for argument `regularizers`"):
            FactorSchedule(linear, regularizers="l2")

    @pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, None, "1", [1.0, 2.0]])
    def test_schedule_must_return_a_factor(self, value):
        model = compiled(network(output=MHE(7.0)))
        with pytest.raises(ValueError, match=r"A schedule must return a finite number.* epoch 0"):
            fit(model, FactorSchedule(lambda epoch: value))

    def test_model_must_have_such_a_regularizer(self):
        model = compiled(network(output=keras.regularizers.L2(1.0)))
        with pytest.raises(ValueError, match="The model has no regularizer whose factor"):
            fit(model, FactorSchedule(linear))

    def test_where_must_name_layers(self):
        model = compiled(network(output=MHE(7.0)))
        with pytest.raises(ValueError, match="Received: 'tail'"):
            fit(model, FactorSchedule(linear, where="tail"))
