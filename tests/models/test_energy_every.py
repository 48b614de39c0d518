"""`EnergyEvery`: which steps compute energies, with which factors, and what is left afterwards."""

import keras
import numpy as np
import pytest
from helpers import normals, on_compiled_and_other_steps
from keras import layers

from keras_mhe import (
    MHE,
    CoMHE,
    EnergyEvery,
    HalfSpaceMHE,
    HypersphericalRegularization,
    Uniformity,
    regularize,
)

# The data have no gradient: only energies move the weights.
X, Y = np.zeros((24, 8), "float32"), np.zeros((24, 3), "float32")
FIT = {"batch_size": 4, "verbose": 0, "shuffle": False}


def network(head=None):
    if head is None:
        head = layers.Dense(3, kernel_regularizer=MHE(2.0, bounded=False))
    hidden = layers.Dense(6, kernel_regularizer=HalfSpaceMHE(1.0, bounded=False))
    return keras.Sequential([keras.Input((8,)), hidden, head])


def compiled(model, **options):
    accumulated = options.pop("accumulated", None)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated)
    model.compile(optimizer, "mse", **options)
    return model


def kernels(model):
    return [w for w in model.get_weights() if w.ndim == 2]


class Recorder(keras.callbacks.Callback):
    """Records which batches have changed the kernels."""

    def on_train_begin(self, logs=None):
        self.before, self.moved = kernels(self.model), []

    def on_train_batch_end(self, batch, logs=None):
        now = kernels(self.model)
        self.moved.append([bool(np.any(a != b)) for a, b in zip(now, self.before, strict=True)])
        self.before = now


def moved(model, k, epochs=1, **options):
    recorder = Recorder()
    model.fit(X, Y, epochs=epochs, callbacks=[EnergyEvery(k), recorder], **FIT, **options)
    return [index for index, each in enumerate(recorder.moved) if any(each)]


class TestSteps:
    @on_compiled_and_other_steps
    def test_every_kth_step_has_k_times_the_gradient(self, jit_compile):
        model = compiled(network(), jit_compile=jit_compile)
        single = compiled(network(), jit_compile=jit_compile)
        single.set_weights(model.get_weights())
        single.optimizer.learning_rate = 0.3
        assert moved(model, 3) == [0, 3]
        single.fit(X[:8], Y[:8], **FIT)
        for ours, theirs in zip(kernels(model), kernels(single), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_steps_go_on_over_epochs_and_trainings(self):
        model = compiled(network())
        assert moved(model, 4, epochs=2) == [0, 4, 8]
        assert int(model.optimizer.iterations) == 12
        assert moved(model, 5) == [3]

    def test_k_of_one_is_training_without_it(self):
        one, other = compiled(network()), compiled(network())
        other.set_weights(one.get_weights())
        one.fit(X, Y, callbacks=[EnergyEvery(1)], **FIT)
        other.fit(X, Y, **FIT)
        for ours, theirs in zip(kernels(one), kernels(other), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_a_step_is_an_update_of_the_optimizer(self):
        """Three updates of two batches each; the energies are in both batches of an update."""
        model = compiled(network(), accumulated=2)
        assert moved(model, 2) == [1, 5]

    @pytest.mark.skipif(
        keras.backend.backend() == "torch", reason="Keras has no such executions on PyTorch"
    )
    def test_executions_of_several_steps_count_as_one(self):
        model = compiled(network(), steps_per_execution=2)
        before = kernels(model)
        model.fit(X[:16], Y[:16], callbacks=[EnergyEvery(4)], **FIT)
        reference = compiled(network())
        reference.set_weights([*before[:1], np.zeros(6), *before[1:], np.zeros(3)])
        reference.optimizer.learning_rate = 0.4
        reference.fit(X[:8], Y[:8], **FIT)
        for ours, theirs in zip(kernels(model), kernels(reference), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("where", ["wrapper", "whole model", "learned"])
    def test_energies_of_all_forms(self, where):
        if where == "whole model":
            model = network(layers.Dense(3))
            regularize(model)
        else:
            energy = MHE(2.0) if where == "wrapper" else CoMHE(projection="angle")
            model = network(HypersphericalRegularization(layers.Dense(3), energy))
        assert moved(compiled(model), 3) == [0, 3]

    def test_selected_layers_and_regularizers_alone_are_lazy(self):
        output = {"where": lambda layer: getattr(layer, "units", 0) == 3}
        for options in (output, {"regularizers": HalfSpaceMHE}):
            model, recorder = compiled(network()), Recorder()
            model.fit(X, Y, callbacks=[EnergyEvery(6, **options), recorder], **FIT)
            counts = np.sum(recorder.moved, axis=0)
            assert sorted(counts) == [1, 6]


class TestLosses:
    def test_nothing_is_computed_in_the_steps_between(self):
        """An energy of NaN would be NaN, and so would zero times this energy."""
        model, losses = compiled(network()), []

        class Losses(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                losses.append(float(keras.ops.convert_to_numpy(sum(self.model.losses))))

        model.layers[0].kernel.assign(np.full((8, 6), np.nan, "float32"))
        model.optimizer.learning_rate = 0.0
        model.fit(X[:16], Y[:16], callbacks=[EnergyEvery(2), Losses()], **FIT)
        np.testing.assert_array_equal(np.isnan(losses), [True, False, True, False])
        assert losses[1] == 0

    def test_validation_and_the_model_afterwards_have_the_own_factors(self):
        model = compiled(network())
        model.optimizer.learning_rate = 0.0
        expected = model.evaluate(X, Y, **{k: v for k, v in FIT.items() if k != "shuffle"})
        history = model.fit(
            X, Y, epochs=2, validation_data=(X, Y), callbacks=[EnergyEvery(3)], **FIT
        ).history
        np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)
        np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
        assert set(history) == {"loss", "val_loss"}
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)

    def test_uniformity_is_weighted_too(self):
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4), Uniformity(MHE(1.0))])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = normals(24, 8)
        plain = model.fit(x, np.zeros((24, 4)), **FIT).history["loss"][0]
        lazy = model.fit(x, np.zeros((24, 4)), callbacks=[EnergyEvery(6)], **FIT).history["loss"][0]
        # The energy of the first batch alone, six times, in place of the mean over batches.
        assert lazy == pytest.approx(plain, rel=0.5)
        assert lazy != plain


@pytest.mark.parametrize("k", [0, -1, 2.5, "4", True])
def test_k_must_be_a_positive_integer(k):
    with pytest.raises((TypeError, ValueError), match=r"`k`.*a positive integer"):
        EnergyEvery(k)


def test_a_model_without_energies_raises():
    with pytest.raises(ValueError, match="no regularizer whose factor"):
        compiled(keras.Sequential([keras.Input((8,)), layers.Dense(3)])).fit(
            X, Y, callbacks=[EnergyEvery(2)], **FIT
        )
