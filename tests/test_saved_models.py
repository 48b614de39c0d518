"""Models that version 0.1.0 saved before its release, with old module and argument names, load.

`losses.json` contains the losses that the saving version computed on each backend, because random
projections and groups differ between backends. The files `from_*.keras` were saved on the backend
that their name contains, after training, by Keras 3.15.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_mhe

folder = Path(__file__).parent / "data" / "saved_models"
LOSSES = json.loads((folder / "losses.json").read_text())
# Each model needs several compiled programs. The quick one has wrappers and learned states.
QUICK = ("wrapped",)
NAMES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in LOSSES["tensorflow"]
]


def load(name, **options):
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15):
        pytest.skip("older versions of Keras do not load files of Keras 3.15")
    return keras.saving.load_model(folder / f"{name}.keras", **options)


@pytest.mark.parametrize("name", NAMES)
def test_saved_models_load_with_equal_losses(name):
    if keras.backend.backend() not in LOSSES:
        pytest.skip("no losses were recorded on this backend")
    losses = [float(loss) for loss in load(name).losses]
    assert losses == pytest.approx(LOSSES[keras.backend.backend()][name], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES["portable"])
def test_models_load_on_every_backend_with_the_losses_of_the_backend_that_saved_them(name):
    """The models have learned projections and poles, but no random draws, which would differ."""
    # Keras saves the optimizers of PyTorch by names of modules that need PyTorch.
    model = load(name, compile=False)
    losses = [float(loss) for loss in model.losses]
    assert losses == pytest.approx(LOSSES["portable"][name], rel=1e-5)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(np.ones((4, 8, 8, 2)), np.ones((4, 5)), verbose=0)
    assert [float(loss) for loss in model.losses] != losses


@pytest.mark.slow
def test_loaded_model_trains_and_saves_again(tmp_path):
    model = load("resnet_wrapped")
    model.fit(np.ones((4, 8, 8, 3)), np.ones((4, 5)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = [float(loss) for loss in model.losses]
    assert [float(loss) for loss in loaded.losses] == pytest.approx(expected, rel=1e-5)


def test_tensorflow_checkpoint_restores_the_state_of_wrappers():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow reads this checkpoint")
    import tensorflow as tf

    model = load("wrapped")
    expected = model.get_weights()
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))
    checkpoint = tf.train.Checkpoint(model=model)
    status = checkpoint.read(str(folder / "wrapped_checkpoint"))
    status.assert_existing_objects_matched()
    assert any("projection" in variable.path for variable in model.variables)
    for got, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(got, value)


@pytest.mark.once
def test_configs_with_old_argument_names_load():
    config = {"factor": 0.5, "half_space": True, "every": True, "neuron_axis": -2, "groups": 3}
    regularizer = keras_mhe.MHS.from_config(config)
    assert regularizer.get_config() == {
        "factor": 0.5,
        "half_space": True,
        "all_neurons": True,
        "neuron_axis": -2,
        "groups": 3,
        "bounded": True,
    }
    assert "every" in config
