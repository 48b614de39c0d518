"""Model files whose parts are changed, and the messages about them."""

import json
import zipfile

import keras
import pytest
from keras import layers

from keras_mhe.cli._errors import ModelFileError
from keras_mhe.cli._files import model_from_file


def saved_model(folder):
    """Saves a model of two kernels and returns its path."""
    path = folder / "model.keras"
    keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, name="hidden"), layers.Dense(3, name="head")]
    ).save(path)
    return path


def with_parts(path, config=None, weights=None, method=zipfile.ZIP_DEFLATED):
    """A copy of a model file with changed parts.

    Args:
        path: the file.
        config: a function of the config as a dict, which changes it or returns the new text.
        weights: a function of the content of the weights, which returns the new content.
        method: the compression.
    """
    other = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", method) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json" and config is not None:
                changed = json.loads(content)
                content = config(changed) or json.dumps(changed)
            if name == "model.weights.h5" and weights is not None:
                content = weights(content)
            new.writestr(name, content)
    return other


def with_layers(path, *described, shape=(8,)):
    """A copy of a model file with other layers: pairs of a class and its config."""

    def change(config):
        first = ("InputLayer", {"batch_shape": [None, *shape]})
        config["config"]["layers"] = [
            {"module": "keras.layers", "class_name": name, "config": part, "registered_name": None}
            for name, part in (first, *described)
        ]

    return with_parts(path, change)


def error_message(*paths):
    """The message about files that give no model; it is one sentence that names a file."""
    with pytest.raises(ModelFileError) as raised:
        model_from_file(*paths)
    message = str(raised.value)
    assert str(paths[0]) in message or str(paths[-1]) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message
