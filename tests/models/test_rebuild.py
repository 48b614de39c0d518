"""Stateful regularizers need a new model of the same layers, with wrappers around them."""

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers
from small_models import (
    Subclassed,
    actions,
    batch,
    dense_model,
    roles,
    sum_of_losses,
)

from keras_mhe import (
    MHE,
    MHP,
    AngleProjection,
    CoMHE,
    HalfSpaceMHE,
    HypersphericalRegularization,
    regularize,
    unregularize,
)


def test_rebuilt_model_has_wrappers_and_keeps_weights_and_optimizer_state(tmp_path):
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
    for old, copied in zip(velocity, new.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(copied))
    assert len(new.losses) == 3

    projection = new.get_layer("first").state["projection"]
    start = np.array(projection)
    new.fit(inputs, labels, epochs=2, verbose=0)
    assert np.abs(np.array(projection) - start).max() > 0
    # Both models share their weights.
    np.testing.assert_allclose(
        new.predict(inputs, verbose=0), model.predict(inputs, verbose=0), rtol=1e-6
    )
    new.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(new), rel=1e-5)
    assert [row.note for row in regularize(loaded, MHP(), None).rows].count("already wrapped") == 2

    bare = unregularize(loaded).model
    assert bare.losses == []
    np.testing.assert_allclose(
        bare.predict(inputs, verbose=0), new.predict(inputs, verbose=0), rtol=1e-5
    )


@pytest.mark.slow
def test_given_and_rebuilt_model_can_both_train_and_be_saved(tmp_path):
    inputs, labels = batch()
    model = dense_model(6, 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, labels, verbose=0)
    new = regularize(model, MHP()).model
    new.fit(inputs, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    model.fit(inputs, labels, verbose=0)
    bare = unregularize(new).model
    bare.fit(inputs, labels, verbose=0)
    new.fit(inputs, labels, verbose=0)
    # `unregularize` took the kernels from the wrappers. `regularize` gives them back.
    assert len(new.losses) == 0
    regularize(new, MHP(), None)
    assert len(new.losses) == len(model.losses) == 1
    [row] = unregularize(model).rows
    assert (row.role, row.action) == ("hidden", "removed")
    assert len(new.losses) == len(model.losses) == 0


@pytest.mark.slow
def test_rebuilt_model_keeps_optimizer_state_in_mixed_precision():
    inputs, labels = batch()
    model = dense_model(6, 3, dtype="mixed_float16")
    model.compile(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(inputs, labels, verbose=0)
    table = regularize(model, MHP(), MHP())
    assert "without a state" not in table.title
    copied = table.model.optimizer.variables
    for old, new in zip(model.optimizer.variables, copied, strict=True):
        np.testing.assert_array_equal(np.array(old), np.array(new), err_msg=old.path)
    table.model.fit(inputs, labels, verbose=0)


def test_frozen_rebuilt_model_can_be_made_trainable():
    model = dense_model(6, 3)
    model.trainable = False
    new = regularize(model, MHP(), MHP()).model
    assert new.losses == []
    new.trainable = True
    assert len(new.trainable_weights) == 4
    assert len(new.losses) == 2


def test_rebuilt_model_is_not_compiled_if_the_loss_cannot_be_copied():
    inputs, labels = batch()
    model = dense_model(6, 3)
    regularize(model)
    model.compile("sgd", lambda y, p: keras.ops.mean(p, axis=-1))
    model.fit(inputs, labels, verbose=0)
    table = regularize(model, MHP())
    assert "Compile it" in table.title
    assert not table.model.compiled
    assert model.compiled


def test_model_is_unchanged_if_rebuilding_fails():
    class CustomModel(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((8,))
            super().__init__(inputs, layers.Dense(units)(layers.Dense(6)(inputs)))
            self.units = units

    model = CustomModel(3)
    regularize(model)
    before = sum_of_losses(model)
    with pytest.raises((TypeError, ValueError)):
        regularize(model, MHP(), MHE(3.0))
    assert sum_of_losses(model) == pytest.approx(before, rel=1e-6)
    assert [type(layer.kernel_regularizer) for layer in model.layers[1:]] == [HalfSpaceMHE, MHE]


def test_stateful_regularizer_replaces_the_energy_and_keeps_others():
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


def test_layer_that_cannot_be_wrapped_raises_a_clear_error():
    model = Subclassed()
    model(normals(2, 8))
    with pytest.raises(ValueError, match=r"learns: wrap the layer where it is created"):
        regularize(model, MHP(), None)


def test_stateful_regularizer_applies_to_all_kernels_of_a_layer_or_none():
    model = keras.Sequential(
        [keras.Input((6, 1)), layers.SimpleRNN(4, name="rnn"), layers.Dense(4, name="head")]
    )
    table = regularize(model, MHP(), MHE(10.0))
    assert actions(table) == ["skipped", "skipped", "regularized"]
    assert (
        "all kernels of the layer or none; kernel: neurons of one coordinate" in table.rows[1].note
    )


def test_weights_are_loaded_before_regularize_or_into_the_given_model(tmp_path):
    def network():
        return keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3, name="head")])

    saved, path = network(), tmp_path / "bare.weights.h5"
    saved.save_weights(path)
    plain = network()
    wrapped = regularize(plain, CoMHE(projection="angle"), None).model
    with pytest.raises(ValueError, match="Load the file into the model without wrappers"):
        wrapped.load_weights(path)
    plain.load_weights(path)
    x = normals(2, 8)
    to_numpy = keras.ops.convert_to_numpy
    expected = to_numpy(saved(x))
    np.testing.assert_array_equal(to_numpy(wrapped(x)), expected)
    # The other way: load into the same wrappers, then remove them.
    wrapped.save_weights(tmp_path / "wrapped.weights.h5")
    other = regularize(network(), CoMHE(projection="angle"), None).model
    other.load_weights(tmp_path / "wrapped.weights.h5")
    np.testing.assert_array_equal(to_numpy(unregularize(other).model(x)), expected)
