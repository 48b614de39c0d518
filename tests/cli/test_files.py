"""`model_from_file` loads Keras models, runs no code of a file, and explains what it refuses."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from model_files import error_message, with_parts

from keras_mhe import CoMHE, HalfSpaceMHE, HypersphericalRegularization, energy_report
from keras_mhe.cli._files import model_from_file

pytestmark = pytest.mark.once


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(
                8, name="hidden", kernel_regularizer=HalfSpaceMHE() + keras.regularizers.L2()
            ),
            HypersphericalRegularization(layers.Dense(4), CoMHE(projection="angle")),
            layers.Dense(3, name="head"),
        ]
    )


@pytest.fixture
def saved_model(tmp_path):
    path = tmp_path / "model.keras"
    model = network()
    model.compile("adam", "mse")
    model.save(path)
    return model, path


def test_models_with_keras_and_keras_mhe_objects_are_loaded(saved_model):
    model, path = saved_model
    loaded = model_from_file(path)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not loaded.compiled


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_weights_of_another_file_are_loaded_into_the_model(saved_model, tmp_path, suffix):
    path = tmp_path / "plain.keras"

    def plain():
        return keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(3)])

    model = plain()
    plain().save(path)
    weights = tmp_path / f"other{suffix}"
    model.save(weights) if suffix == ".h5" else model.save_weights(weights)
    loaded = model_from_file(path, weights)
    assert energy_report(loaded).rows[0].energy == energy_report(model).rows[0].energy
    # A file of weights is not a model.
    assert "--weights" in error_message(weights)
    # Weights of another model do not fit.
    assert "does not fit" in error_message(saved_model[1], weights)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lambda_layers_are_refused(tmp_path):
    marker, path = str(tmp_path / "ran"), tmp_path / "model.keras"
    program = layers.Lambda(lambda x: (open(marker, "w").close(), x)[1])  # noqa: PTH123
    model = keras.Sequential([keras.Input((6,)), program, layers.Dense(3)])
    Path(marker).unlink(missing_ok=True)
    model.save(path)
    assert "contains code (Lambda" in error_message(path)
    keras.config.enable_unsafe_deserialization()
    try:
        error_message(path)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)
    assert not Path(marker).exists()


@keras.saving.register_keras_serializable(package="test_files")
class CustomLayer(layers.Dense):
    pass


def test_custom_classes_are_refused_and_named(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((6,)), CustomLayer(3)]).save(path)
    assert "classes that do not belong to Keras (CustomLayer)" in error_message(path)


def test_models_with_a_custom_loss_are_loaded(tmp_path):
    @keras.saving.register_keras_serializable(package="test_files")
    def custom_loss(y, p):
        return keras.ops.mean(y - p, axis=-1)

    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    model.compile("sgd", custom_loss)
    model.save(path)
    assert len(model_from_file(path).weights) == 2


@pytest.mark.parametrize("part", ["layer", "initializer"])
def test_other_modules_than_keras_are_not_imported(saved_model, tmp_path, monkeypatch, part):
    (tmp_path / "evil_module.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"module": "evil_module", "class_name": "Evil", "config": {}, "registered_name": "Evil"}

    def change(config):
        layer = config["config"]["layers"][1]
        if part == "layer":
            layer.update(evil)
        else:
            layer["config"]["kernel_initializer"] = evil

    assert "Evil" in error_message(with_parts(saved_model[1], change))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["layers.Lambda", "src.layers.Lambda", "Lambda>x", "a b"])
def test_paths_in_class_names_are_refused(saved_model, name):
    def change(config):
        config["config"]["layers"][1].update(module="keras", class_name=name)

    assert name.rpartition(".")[2] in error_message(with_parts(saved_model[1], change))


def test_losses_of_inner_models_are_not_loaded(tmp_path, monkeypatch):
    """Keras compiles inner models even with `compile=False`, and imports modules for it."""
    (tmp_path / "keras_hub.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model.keras"
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5)])
    inner.compile("sgd", "mse")
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])
    model.save(path)

    def change(config):
        loss = {"module": "keras_hub", "class_name": "Evil", "config": {}, "registered_name": None}
        config["config"]["layers"][1]["compile_config"]["loss"] = loss

    loaded = model_from_file(with_parts(path, change))
    assert not (tmp_path / "ran").exists()
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras.models", "load_model"),
        ("keras", "function"),
        ("keras.utils", "Sequence"),
        ("keras.src.saving.saving_lib", "DiskIOStore"),
    ],
)
def test_keras_objects_that_are_no_parts_of_models_are_refused(saved_model, module, name):
    def change(config):
        part = {"module": module, "class_name": name, "config": name, "registered_name": None}
        config["config"]["layers"][1]["config"]["activation"] = part

    assert f"({name})" in error_message(with_parts(saved_model[1], change))


def test_models_with_operations_and_layers_of_many_kinds_are_loaded(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation=keras.ops.gelu, kernel_constraint="max_norm")(inputs)
    x = keras.ops.relu(x) + keras.ops.mean(x, axis=-1, keepdims=True) * 2
    x = layers.Bidirectional(layers.LSTM(4))(layers.Reshape((-1, 4))(layers.RandomFlip()(x)))
    x = layers.MultiHeadAttention(2, 3)(x[:, None], x[:, None])
    x = layers.Dense(4, dtype="mixed_bfloat16", activation=layers.LeakyReLU())(x)
    path = tmp_path / "model.keras"
    model = keras.Model(inputs, x)
    model.save(path)
    for one, other in zip(model.get_weights(), model_from_file(path).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_functions_of_other_modules_are_refused(saved_model):
    def change(config):
        call = {"module": "os", "class_name": "function", "config": "system"}
        config["config"]["layers"][1]["config"]["activation"] = call

    error_message(with_parts(saved_model[1], change))


def test_pickles_are_refused_and_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "model.keras"
    path.write_bytes(pickle.dumps(Evil()))
    assert "is no Keras model" in error_message(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(saved_model, tmp_path, fraction):
    content = saved_model[1].read_bytes()
    path = tmp_path / "short.keras"
    path.write_bytes(content[: int(fraction * len(content))])
    error_message(path)


def test_damaged_weights_are_refused(saved_model, tmp_path):
    path = tmp_path / "damaged.keras"
    with zipfile.ZipFile(saved_model[1]) as old, zipfile.ZipFile(path, "w") as new:
        new.writestr("config.json", old.read("config.json"))
        new.writestr("metadata.json", old.read("metadata.json"))
        new.writestr("model.weights.h5", old.read("model.weights.h5")[:500])
    assert "cannot be loaded" in error_message(path)


def test_flipped_bits_are_refused(saved_model, tmp_path):
    content = bytearray(saved_model[1].read_bytes())
    at = content.index(b"config.json") + 200
    content[at] ^= 0xFF
    path = tmp_path / "flipped.keras"
    path.write_bytes(content)
    error_message(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is no Keras model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no Keras model"),
        (b"PK\x03\x04" + bytes(100), "damaged or truncated"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "only weights are read"),
    ],
)
def test_files_of_other_kinds_are_refused_with_a_reason(tmp_path, content, message):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    assert message in error_message(path)


@pytest.mark.parametrize(
    "config", ["[]", "{}", "null", "17", "not json", '{"class_name": 3}', "[" * 100_000]
)
def test_archives_with_an_invalid_config_are_refused(tmp_path, config):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    error_message(path)


@pytest.mark.parametrize(("field", "value"), [(6, 1), (8, 77)], ids=["encrypted", "method 77"])
def test_encrypted_and_unsupported_archives_are_refused(saved_model, tmp_path, field, value):
    content = bytearray(saved_model[1].read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = content.index(signature)
        while at >= 0:
            content[at + field + shift] = value
            at = content.find(signature, at + 1)
    path = tmp_path / "closed.keras"
    path.write_bytes(content)
    assert "damaged" in error_message(path)


def test_error_has_the_reason_that_keras_gives(saved_model):
    def change(config):
        config["config"]["layers"][1]["config"]["units"] = -3

    assert "-3" in error_message(with_parts(saved_model[1], change))


def test_pipes_are_refused_without_waiting(tmp_path):
    path = tmp_path / "pipe.keras"
    os.mkfifo(path)
    assert "not a regular file" in error_message(path)


def test_archives_without_a_config_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    assert "no config.json" in error_message(path)


def test_saved_layers_are_refused(tmp_path):
    path = tmp_path / "layer.keras"
    with zipfile.ZipFile(path, "w") as archive:
        layer = keras.saving.serialize_keras_object(layers.Dense(3))
        archive.writestr("config.json", json.dumps(layer))
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        buffer = io.BytesIO()
        h5py.File(buffer, "w").close()
        archive.writestr("model.weights.h5", buffer.getvalue())
    error_message(path)


def test_folders_missing_and_unreadable_files_are_refused_with_a_reason(saved_model, tmp_path):
    assert "is a folder" in error_message(tmp_path)
    assert "does not exist" in error_message(tmp_path / "nowhere.keras")
    assert "does not exist" in error_message(saved_model[1], tmp_path / "nowhere.h5")
    other = saved_model[1].rename(tmp_path / "model.zip")
    assert "expected a .keras file" in error_message(other)
    if os.geteuid():
        other.chmod(0)
        assert "cannot be read" in error_message(other)
