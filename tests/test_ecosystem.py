"""Searches by KerasTuner and scikit-learn, and exported models: SavedModel and TFLite."""

import keras
import numpy as np
import pytest
from helpers import energy_value, normals
from keras import layers
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from small_models import HALF, batch, sum_of_losses

from keras_mhe import MHE, AngleProjection, CoMHE, HalfSpaceMHE, HypersphericalRegularization

pytestmark = pytest.mark.slow


def energy_of(model):
    """The energy of the first kernel, without its factor."""
    return energy_value(model.layers[0].kernel, **HALF)


# KerasTuner 1.4.8 uses old names of `threading`, and loads the weights of the best model before the
# optimizer of that model has variables.
@pytest.mark.filterwarnings(r"ignore:(currentThread|getName)\(\) is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
def test_best_model_of_keras_tuner_has_the_factor_of_the_best_trial(tmp_path):
    tuner = pytest.importorskip("keras_tuner", reason="the extra `ecosystem` is not installed")
    inputs, labels = batch(32)

    def build(choices):
        factor = choices.Float("factor", 0.1, 10.0, sampling="log")
        hidden = layers.Dense(6, "relu", kernel_regularizer=HalfSpaceMHE(factor))
        model = keras.Sequential([keras.Input((8,)), hidden, layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metric = keras.metrics.SparseCategoricalCrossentropy("crossentropy", from_logits=True)
        model.compile("adam", loss, metrics=[metric])
        return model

    def random_search(overwrite):
        # Not "val_loss": it contains the energy, so the smallest factor would win.
        objective = tuner.Objective("val_crossentropy", "min")
        options = {"directory": tmp_path, "project_name": "factor", "overwrite": overwrite}
        return tuner.RandomSearch(build, objective, max_trials=2, seed=0, **options)

    search = random_search(overwrite=True)
    search.search(inputs, labels, validation_data=(inputs, labels), epochs=2, verbose=0)
    best, other = search.oracle.get_best_trials(2)
    factor = best.hyperparameters.get("factor")
    assert best.score < other.score
    assert factor != other.hyperparameters.get("factor")

    # Another search reads the trials and the weights from the files of the first one.
    [model] = random_search(overwrite=False).get_best_models()
    assert model.layers[0].kernel_regularizer.factor == factor
    result = model.evaluate(inputs, labels, verbose=0, return_dict=True)
    assert result["crossentropy"] == pytest.approx(best.score, rel=1e-5)
    energy = factor * energy_of(model)
    assert result["loss"] - result["crossentropy"] == pytest.approx(energy, rel=1e-4)

    model.save(tmp_path / "best.keras")
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert loaded.layers[0].kernel_regularizer.factor == factor
    assert sum_of_losses(loaded) == pytest.approx(energy, rel=1e-5)


def compiled_model(X, y, regularizer=None):  # noqa: N803
    """A model for the wrappers of Keras, which pass the data by these names."""
    # All runs start with the same weights, so that they differ by the regularizer only.
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(12, "relu", kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input(X.shape[1:]), hidden, layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "categorical_crossentropy")
    return model


class TestScikitLearn:
    """Models in `keras.wrappers.SKLearnClassifier` are estimators of scikit-learn."""

    # Given to each fit: Keras 3.15 forgets `fit_kwargs` when scikit-learn clones an estimator.
    @property
    def options(self):
        return {"epochs": 10, "verbose": 0}

    @property
    def data(self):
        inputs, labels = batch(24)
        # Few inputs crowd the neurons, so training can lower the energy by much.
        return inputs[:, :4], np.array(["zero", "one", "two"])[labels]

    def test_each_fold_is_trained_with_the_energy(self):
        estimator = keras.wrappers.SKLearnClassifier(
            compiled_model, model_kwargs={"regularizer": HalfSpaceMHE(3.0)}
        )
        result = cross_validate(
            estimator, *self.data, cv=2, return_estimator=True, params=self.options
        )
        models = [fold.model_ for fold in result["estimator"]]
        start = energy_of(compiled_model(*self.data))
        for model in models:
            assert sum_of_losses(model) == pytest.approx(3 * energy_of(model), rel=1e-5)
            assert energy_of(model) < 0.9 * start
        assert energy_of(models[0]) != energy_of(models[1])
        assert np.isfinite(result["test_score"]).all()

    def test_grid_search_compares_factors(self):
        def score(estimator, *data):
            return -energy_of(estimator.model_)

        # scikit-learn copies the parameters, and so the regularizers.
        grid = [{"regularizer": HalfSpaceMHE(factor)} for factor in (0.0, 10.0)]
        estimator = keras.wrappers.SKLearnClassifier(compiled_model)
        search = GridSearchCV(estimator, {"model_kwargs": grid}, scoring=score, cv=2)
        search.fit(*self.data, **self.options)
        without, with_energy = -search.cv_results_["mean_test_score"]
        assert with_energy < 0.9 * without
        assert search.best_params_["model_kwargs"]["regularizer"].factor == 10
        assert search.best_estimator_.model_.layers[0].kernel_regularizer.factor == 10

    def test_parameters_of_a_clone_do_not_change_the_original(self):
        parameters = {"regularizer": HalfSpaceMHE(1.0)}
        estimator = keras.wrappers.SKLearnClassifier(compiled_model, model_kwargs=parameters)
        copy = clone(estimator)
        assert copy.get_params()["model_kwargs"] == parameters
        copy.set_params(model_kwargs={"regularizer": MHE(2.0)})
        assert estimator.get_params()["model_kwargs"] == parameters
        fitted = copy.fit(*self.data, epochs=1, verbose=0).model_
        expected = 2 * energy_value(fitted.layers[0].kernel)
        assert sum_of_losses(fitted) == pytest.approx(expected, rel=1e-5)
        assert not hasattr(estimator, "model_")

    def test_fitting_a_compiled_model_trains_a_clone_with_its_energy(self):
        model = compiled_model(*self.data, HalfSpaceMHE(3.0))
        weights, before = model.get_weights(), energy_of(model)
        fitted = keras.wrappers.SKLearnClassifier(model).fit(*self.data, **self.options).model_
        assert sum_of_losses(fitted) == pytest.approx(3 * energy_of(fitted), rel=1e-5)
        assert energy_of(fitted) < 0.9 * before
        for expected, weight in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)


def network(with_energies):
    """Convolution, attention and dense layers, with energies of each kind or with none."""

    def wrapped(layer, regularizer):
        return HypersphericalRegularization(layer, regularizer) if with_energies else layer

    half, full = (HalfSpaceMHE(1.0), MHE(10.0)) if with_energies else (None, None)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, activation="relu", kernel_regularizer=half)(inputs)
    x = layers.Reshape((36, 6))(x)
    x = wrapped(layers.MultiHeadAttention(2, 4), HalfSpaceMHE(1.0))(x, x)
    x = layers.GlobalAveragePooling1D()(x)
    x = wrapped(layers.Dense(5, "relu"), CoMHE(projection=AngleProjection(3)))(x)
    return keras.Model(inputs, layers.Dense(3, kernel_regularizer=full)(x))


@pytest.fixture(scope="module")
def tensorflow():
    """TensorFlow, which writes and reads exported models, also those of JAX."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("Keras exports a SavedModel on TensorFlow and JAX")
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def trained(tensorflow):
    """A network after a training step, and a network without energies with the same weights."""
    model, plain = network(with_energies=True), network(with_energies=False)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(normals(4, 8, 8, 2, seed=1), np.arange(4) % 3)
    for weight, trained in zip(plain.weights, model.trainable_weights, strict=True):
        weight.assign(trained)
    return model, plain


# Keras passes an argument to JAX that JAX no longer needs.
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter is deprecated")
def test_exported_model_gives_the_outputs_of_a_model_without_energies(
    tensorflow, trained, tmp_path
):
    model, plain = trained
    losses = list(map(float, model.losses))
    assert len(losses) == 7
    model.export(tmp_path / "exported", verbose=False)
    images = normals(5, 8, 8, 2)
    exported = tensorflow.saved_model.load(str(tmp_path / "exported"))
    outputs, expected = exported.serve(images).numpy(), plain.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
    assert np.ptp(expected) > 1e-3
    assert list(map(float, model.losses)) == losses


# TensorFlow announces that the package ai-edge-litert replaces its interpreter.
@pytest.mark.filterwarnings(r"ignore:[\s\S]*use the LiteRT interpreter:UserWarning")
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter is deprecated")
def test_tflite_file_has_the_operations_of_a_model_without_energies(tensorflow, trained, tmp_path):
    lite, interpreters = tensorflow.lite, []
    for name, model in zip(("trained", "plain"), trained, strict=True):
        model.export(tmp_path / name, verbose=False)
        file = lite.TFLiteConverter.from_saved_model(str(tmp_path / name)).convert()
        interpreters.append(lite.Interpreter(model_content=file))
    # The file contains no operation of an energy. On JAX it contains a handle and a value of each
    # variable of the wrappers, because Keras gives a program of JAX all variables of the model.
    with_energies, without = (len(each.get_tensor_details()) for each in interpreters)
    unused = len(trained[0].non_trainable_variables) if keras.backend.backend() == "jax" else 0
    assert with_energies - without == 2 * unused

    images = normals(5, 8, 8, 2)
    run = interpreters[0].get_signature_runner()
    [name] = run.get_input_details()
    [outputs] = run(**{name: images}).values()
    expected = trained[1].predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
