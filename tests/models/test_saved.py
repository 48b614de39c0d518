"""Saving a regularized model keeps its energies, or the table says which ones are lost."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras import layers
from small_models import (
    convolutional_model,
    row_of,
    sum_of_losses,
    transformer_model,
)

from keras_mhe import (
    MHE,
    HalfSpaceMHE,
    HypersphericalRegularization,
    MinimumEnergy,
    Uniformity,
    regularize,
)


def attention_model():
    inputs = keras.Input((4, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))
    regularize(model)
    return model


@pytest.mark.slow
@pytest.mark.once
def test_models_page_quotes_the_errors_of_loading_without_the_package(tmp_path):
    both = HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4)
    parts = [
        [layers.Dense(4, kernel_regularizer=MHE())],
        [layers.Dense(4, kernel_regularizer=both)],
        None,
        [HypersphericalRegularization(layers.Dense(4), MHE())],
        [layers.Dense(4), Uniformity(MHE())],
        [layers.Dense(4, kernel_initializer=MinimumEnergy())],
    ]
    for number, part in enumerate(parts):
        model = keras.Sequential([keras.Input((8,)), *part]) if part else attention_model()
        model.save(tmp_path / f"{number}.keras")
        (tmp_path / f"{number}.json").write_text(model.to_json())
    program = (
        "import json, keras, pathlib, sys\n"
        "def error(load, argument):\n"
        "    try:\n"
        "        load(argument)\n"
        "    except Exception as error:\n"
        "        return str(error)\n"
        "messages = []\n"
        f"for number in range({len(parts)}):\n"
        "    text = pathlib.Path(f'{number}.json').read_text()\n"
        "    messages.append(error(keras.models.load_model, f'{number}.keras'))\n"
        "    messages.append(error(keras.models.model_from_json, text))\n"
        "assert 'keras_mhe' not in sys.modules\n"
        "print(json.dumps(messages))\n"
    )
    command = [sys.executable, "-P", "-c", program]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    messages = json.loads(result.stdout.splitlines()[-1])
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    quoted = re.findall(r"^\| .* \| `(Could not .*)` \|$", page, re.M)
    assert len(quoted) == len(parts)
    for number, quote in enumerate(quoted):
        for message in messages[2 * number : 2 * number + 2]:
            assert message.rpartition("Exception encountered: ")[2].startswith(quote)


@pytest.mark.parametrize("build", [transformer_model, convolutional_model])
def test_loaded_model_has_the_energies_of_all_kernels(build, tmp_path):
    model = build()
    table = regularize(model)
    assert all(row.saved for row in table.rows if row.action != "skipped")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses)
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)
    assert sum_of_losses(keras.models.clone_model(model)) > 0
    regularize(loaded)
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)


def test_table_marks_kernels_whose_energy_is_lost_by_saving(tmp_path):
    @keras.saving.register_keras_serializable(package="test_models")
    class Block(layers.Layer):
        """A layer whose config omits its inner layer."""

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
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)
