"""Configs are refused if Keras would allocate far more than their file has bytes."""

import keras
import pytest
from keras import layers
from model_files import error_message, saved_model, with_layers, with_parts

from keras_mhe import energy_report
from keras_mhe.cli._files import model_from_file

pytestmark = pytest.mark.once


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path)


def with_split(folder, change):
    """A file of a model that splits its inputs, with a changed call of this operation."""
    inputs = keras.Input((8,))
    outputs = layers.Dense(3)(keras.ops.split(inputs, 2, axis=1)[0])
    path = folder / "functional.keras"
    keras.Model(inputs, outputs).save(path)

    def change_split(config):
        [split] = [part for part in config["config"]["layers"] if part["class_name"] == "Split"]
        change(split)

    return with_parts(path, change_split)


def no_inputs(split):
    split["inbound_nodes"] = [{"args": [[1.0]], "kwargs": {}}]


def empty_call(split):
    split["inbound_nodes"] = [[]]


def no_list(split):
    split["inbound_nodes"] = {"": split["inbound_nodes"]}


def hidden_input(split):
    """The tensor is a part of another object, where Keras does not look for it."""
    [tensor] = split["inbound_nodes"][0]["args"]
    parts = {"start": tensor, "stop": None, "step": None}
    slices = {"class_name": "__slice__", "config": parts}
    split["inbound_nodes"] = [{"args": [[1.0], slices], "kwargs": {}}]


@pytest.mark.parametrize("change", [no_inputs, empty_call, no_list, hidden_input])
def test_operations_on_constants_are_refused(tmp_path, change):
    """Keras would compute them, for example a padding with gigabytes."""

    def padding(split):
        split.update(class_name="Pad")
        split["config"] = {"name": split["config"]["name"], "pad_width": [[0, 10**10]]}
        change(split)

    assert "a call of a layer without an input" in error_message(with_split(tmp_path, padding))


def test_models_with_calls_are_loaded(tmp_path):
    assert model_from_file(with_split(tmp_path, lambda split: None)).count_params() == 15


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (["a"], "S2000000000", "an array without numbers"),
        (["a"] * 50_000 + ["x" * 50_000], None, "texts of up to 50,000 letters"),
    ],
)
def test_arrays_of_texts_are_refused(model, values, dtype, message):
    def change(config):
        array = {"class_name": "__numpy__", "config": {"value": values, "dtype": dtype}}
        config["config"]["layers"][1]["config"]["kernel_initializer"] = array

    assert message in error_message(with_parts(model, change))


def test_vocabularies_of_any_declared_size_are_refused(model):
    lookup = {"vocabulary": ["a"], "idf_weights": [1.0], "output_mode": "tf_idf"}
    lookup |= {"max_tokens": 2 * 10**9, "pad_to_max_tokens": True}
    path = with_layers(model, ("StringLookup", lookup))
    assert "a vocabulary of 2,000,000,000 words" in error_message(path)


def test_thousands_of_layers_in_a_small_file_are_refused(model):
    path = with_layers(model, *[("Dense", {"units": 1})] * 3000)
    assert path.stat().st_size < 10_000
    assert "3,003 objects" in error_message(path)


@pytest.mark.filterwarnings("ignore:`TimeDistributed`")
@pytest.mark.parametrize("depth", [250, 20_000])
def test_deep_configs_are_refused(model, depth):
    def change(config):
        nested = '{"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": '
        return nested * depth + "null" + "}}" * depth

    error_message(with_parts(model, change))


def test_states_of_recurrent_layers_are_not_created(tmp_path):
    """Keras would create them for the whole batch, but saves none of them."""
    path = tmp_path / "recurrent.keras"
    inputs = keras.Input(batch_shape=(2, 5, 8))
    keras.Sequential([inputs, layers.LSTM(4, stateful=True, name="lstm")]).save(path)

    def change(config):
        config["config"]["layers"][0]["config"]["batch_shape"][0] = 10**10

    for loaded in (model_from_file(path), model_from_file(with_parts(path, change))):
        assert [row.neurons for row in energy_report(loaded).rows] == [4, 4]


def test_constants_of_normalization_are_not_created(tmp_path):
    """Keras would repeat them for each input."""
    path = tmp_path / "normalized.keras"
    keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
            layers.Normalization(mean=0.0, variance=1.0),
            layers.Normalization(),
            layers.MaxPooling2D(8),
            layers.Dense(4),
        ]
    ).save(path)

    def change(config):
        parts = config["config"]["layers"]
        parts[0]["config"]["batch_shape"] = [None, 10**6, 10**6, 3]
        parts[1]["config"].update(axis=[1, 2], mean=0.0, variance=1.0)
        parts[4]["config"].update(pool_size=[10**6, 10**6], strides=[10**6, 10**6])

    for loaded in (model_from_file(path), model_from_file(with_parts(path, change))):
        assert loaded.output_shape == (None, 1, 1, 4)
