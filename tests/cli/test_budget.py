"""No model gets more weights than its file has: memory, messages, and what is still loaded."""

import contextlib
import json

import h5py
import keras
import numpy as np
import pytest
import subprocesses
from keras import layers
from model_files import error_message, saved_model, with_layers, with_parts

from keras_mhe.cli._budget import OverBudgetError, limited_creation
from keras_mhe.cli._files import model_from_file

pytestmark = pytest.mark.once


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path)


def units(count):
    def change(config):
        config["config"]["layers"][1]["config"]["units"] = count

    return change


def test_message_has_the_weights_of_the_config_and_of_the_file(model, tmp_path):
    path = with_parts(model, units(150_000_000))
    message = "describes at least 1,200,000,000 weights, but holds only 51 weights."
    assert error_message(path) == f"{path} {message}"
    weights = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((8,)), layers.Dense(4)]).save_weights(weights)
    message = f"describes at least 1,200,000,000 weights, but {weights} holds only 36 weights."
    assert error_message(path, weights) == f"{path} {message}"


_HUGE = 10**8


@pytest.mark.parametrize(
    ("described", "shape"),
    [
        ([("Embedding", {"input_dim": _HUGE, "output_dim": 8})], (8,)),
        ([("GRU", {"units": _HUGE})], (4, 8)),
        ([("Conv2D", {"filters": _HUGE, "kernel_size": [3, 3]})], (9, 9, 3)),
        ([("RepeatVector", {"n": _HUGE}), ("Flatten", {}), ("Dense", {"units": 1})], (8,)),
        ([("ZeroPadding1D", {"padding": _HUGE}), ("Flatten", {}), ("Dense", {"units": 1})], (8, 1)),
        ([("Dense", {"units": 1})], (_HUGE,)),
        ([("Dense", {"units": 4, "lora_rank": _HUGE})], (8,)),
        ([("BatchNormalization", {})], (_HUGE,)),
        ([("Normalization", {})], (_HUGE,)),
        # No numbers, but a report would have an angle for each of its neurons.
        ([("Dense", {"units": _HUGE, "use_bias": False})], (0,)),
        ([("Dense", {"units": 10**400})], (8,)),
        ([("Dense", {"units": 999})] * 999, (999,)),
    ],
)
def test_weights_that_the_file_does_not_have_are_not_created(model, described, shape):
    assert "weights, but holds only 51 weights." in error_message(
        with_layers(model, *described, shape=shape)
    )


def test_weights_of_one_dataset_with_many_names_are_not_created(model, tmp_path):
    path = tmp_path / "other.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((500, 500), "float32")
        for i in range(1, 20):
            file[f"layers/dense_{i}/vars/0"] = file["layers/dense/vars/0"]
    described = [("Dense", {"units": 500, "use_bias": False})] * 20
    message = error_message(with_layers(model, *described, shape=(500,)), path)
    assert "holds only 250,000 weights" in message


def test_tensors_are_limited(tmp_path):
    """An operation can have millions of outputs without a weight."""
    inputs = keras.Input((8,))
    x = layers.Dense(3)(keras.ops.split(inputs, 2, axis=1)[0])
    path = tmp_path / "split.keras"
    keras.Model(inputs, x).save(path)

    def change(config):
        for part in config["config"]["layers"]:
            if part["class_name"] == "InputLayer":
                part["config"]["batch_shape"] = [None, 10**8]
            if part["class_name"] == "Split":
                part["config"]["indices_or_sections"] = 10**8

    assert "tensors, but holds only 15 weights." in error_message(with_parts(path, change))


def test_models_with_more_weights_than_their_file_are_loaded(tmp_path):
    """The factors of LoRA and the seeds of random layers are not in the file."""
    path = tmp_path / "lora.keras"
    lora = layers.Dense(8, lora_rank=4)
    model = keras.Sequential([keras.Input((8,)), lora, layers.Dropout(0.5), layers.Dense(3)])
    model.save(path)
    assert model_from_file(path).count_params() == model.count_params()


def test_limit_is_checked_even_if_the_error_is_caught():
    def build():
        with limited_creation(10, 10), contextlib.suppress(OverBudgetError):
            layers.Dense(3).build((None, 4))

    with pytest.raises(OverBudgetError, match="at least 12 weights"):
        build()


def test_limits_end_with_the_block():
    create = keras.Variable.__init__, keras.KerasTensor.__init__
    with limited_creation(10, 10):
        layers.Dense(2, use_bias=False).build((None, 4))
    assert (keras.Variable.__init__, keras.KerasTensor.__init__) == create


def test_changes_of_keras_raise_a_clear_error(monkeypatch):
    monkeypatch.setattr(layers.Dense, "build", lambda self, shape: None)
    with pytest.raises(RuntimeError, match=r"relies on `keras\.Variable`"), limited_creation(9, 9):
        pass


_PEAKS = """
import resource, sys
from keras_mhe.cli._files import ModelFileError, model_from_file

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

model_from_file(sys.argv[1])
for path in sys.argv[2:]:
    before = peak()
    try:
        model_from_file(path)
    except ModelFileError:
        print(peak() - before)
"""


@pytest.mark.slow
def test_refused_files_take_no_memory(model, tmp_path):
    """The files have kilobytes. They took 19 GB and 1.1 GB when they were read."""
    small = with_parts(model).rename(tmp_path / "small.keras")
    large = with_parts(model, units(150_000_000)).rename(tmp_path / "large.keras")
    blanks = with_parts(model, lambda config: json.dumps(config) + " " * 10**8)
    assert max(path.stat().st_size for path in (small, large, blanks)) < 200_000
    result = subprocesses.run(_PEAKS, small, large, blanks)
    assert result.returncode == 0, result.stderr
    growths = [int(line) for line in result.stdout.split()]
    assert len(growths) == 2
    assert max(growths) < 50 * 10**6
