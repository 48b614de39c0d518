"""`EnergyMonitor` records reports during training and passes summaries to other callbacks."""

import builtins
import csv
import re

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_mhe import EnergyMonitor, energy_report
from keras_mhe_command._install import install_advice

SUMMARY_NAMES = ["position_mean", "position_max", "nearest_angle_min", "faulty_neurons"]


class StepReports(keras.callbacks.Callback):
    """Computes a report of the current weights after each step, with its own step count."""

    def __init__(self):
        super().__init__()
        self.positions = {}

    def on_train_begin(self, logs=None):
        self._record()

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self._record()

    def _record(self):
        report = energy_report(self.model)
        self.positions[len(self.positions)] = [row.position for row in report.rows]


def fit(model, *callbacks, epochs, **options):
    x, y = normals(50, 6), np.arange(50) % 3
    options = {"batch_size": 10, "verbose": 0, **options}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options)


def train_model(*callbacks, epochs=3, steps_per_execution=1, accumulate=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(3, name="head")]
    )
    model.compile(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps_per_execution,
    )
    return model, fit(model, *callbacks, epochs=epochs)


def positions(monitor):
    return [[row["position"] for row in record["rows"]] for record in monitor.history]


def test_initial_weights_and_each_epoch_are_recorded():
    monitor, reference = EnergyMonitor(), StepReports()
    _, history = train_model(monitor, reference)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert positions(monitor) == [reference.positions[step] for step in (0, 5, 10, 15)]
    assert history.history["position_mean"] == [
        pytest.approx(np.mean(reference.positions[step])) for step in (5, 10, 15)
    ]


def test_integer_every_records_steps_and_ends_of_epochs():
    monitor, reference = EnergyMonitor(every=4), StepReports()
    _, history = train_model(monitor, reference)
    steps = [0, 4, 5, 8, 10, 12, 15]
    assert [r["step"] for r in monitor.history] == steps
    assert [r["epoch"] for r in monitor.history] == [0, 0, 1, 1, 2, 2, 3]
    assert positions(monitor) == [reference.positions[step] for step in steps]
    assert len({str(row) for row in positions(monitor)}) == 7
    # The logs have the values at the end of each epoch.
    assert history.history["position_mean"] == [
        pytest.approx(np.mean(reference.positions[step])) for step in (5, 10, 15)
    ]


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch has no steps_per_execution in Keras"
)
def test_steps_per_execution_counts_single_steps():
    monitor = EnergyMonitor(every=2)
    train_model(monitor, steps_per_execution=5)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]


@pytest.mark.parametrize("every", ["epoch", 5])
def test_gradient_accumulation_counts_single_steps(every):
    monitor = EnergyMonitor(every)
    model, _ = train_model(monitor, accumulate=5, epochs=2)
    new_monitor = EnergyMonitor(every)
    fit(model, monitor, epochs=1)
    fit(model, new_monitor, epochs=1)
    assert [r["step"] for r in monitor.history] == [0, 5, 10, 15]
    assert [r["step"] for r in new_monitor.history] == [15, 20]


def test_new_monitor_continues_the_epoch_and_step_counts_of_the_model():
    model, _ = train_model(epochs=2)
    monitor = EnergyMonitor()
    fit(model, monitor, initial_epoch=2, epochs=4)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(2, 10), (3, 15), (4, 20)]


def test_model_built_at_its_first_step_is_recorded():
    model = keras.Sequential([layers.Dense(8, name="hidden"), layers.Dense(3, name="head")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monitor = EnergyMonitor()
    fit(model, monitor, epochs=2)
    # JAX builds the model before the first step, so it has one more record.
    assert [r["step"] for r in monitor.history][-2:] == [5, 10]
    assert monitor.history[-1]["rows"][0]["neurons"] == 8


def test_monitor_continues_in_a_second_fit():
    monitor = EnergyMonitor()
    model, _ = train_model(monitor)
    fit(model, monitor, initial_epoch=3, epochs=4)
    assert [(r["epoch"], r["step"]) for r in monitor.history][-2:] == [(3, 15), (4, 20)]


def test_other_callbacks_receive_the_summary(tmp_path):
    stopping = keras.callbacks.EarlyStopping("nearest_angle_min", mode="max", min_delta=1e3)
    path = tmp_path / "log.csv"
    _, history = train_model(EnergyMonitor(), keras.callbacks.CSVLogger(path), stopping, epochs=9)
    assert len(history.epoch) == 2
    with path.open() as file:
        lines = list(csv.DictReader(file))
    for name in SUMMARY_NAMES:
        assert [float(line[name]) for line in lines] == history.history[name]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a callback for TensorFlow")
def test_keras_tensorboard_callback_receives_the_summary(tmp_path):
    train_model(EnergyMonitor(), keras.callbacks.TensorBoard(tmp_path), epochs=1)
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert {f"epoch_{name}" for name in SUMMARY_NAMES} <= set(events.Tags()["tensors"])


def test_monitor_does_not_change_training():
    monitored, _ = train_model(EnergyMonitor(every=1))
    plain, _ = train_model()
    for one, other in zip(monitored.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("every", ["epoch", 5])
def test_event_files_hold_positions_energies_and_angles(tmp_path, every):
    monitor = EnergyMonitor(every=every, log_dir=tmp_path)
    model, _ = train_model(monitor)
    # The second file is created within the same second, which is part of the file names.
    fit(model, monitor, epochs=1)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    expected = [record["rows"][0]["position"] for record in monitor.history]
    found = events.Scalars("position/hidden")
    assert [event.step for event in found] == [0, 5, 10, 15, 20]
    assert [event.value for event in found] == pytest.approx(expected)
    assert {*SUMMARY_NAMES, "energy/head", "nearest_angle_min/head"} <= set(
        events.Tags()["scalars"]
    )
    angles = events.Histograms("nearest_angle/hidden")[-1].histogram_value
    assert angles.num == 8
    assert angles.min == pytest.approx(monitor.history[-1]["rows"][0]["nearest_angle_min"])


def test_kernels_have_different_tags_whatever_their_names(tmp_path):
    names = ["a b", "a_b", "a\x1bb", "😀", "😁", "模型"]
    hidden = [layers.Dense(4, name=name) for name in names]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, name="head")])
    monitor = EnergyMonitor(log_dir=tmp_path)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    monitor.on_train_end()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = ["a_b", "a_b_2", "a_x1bb", "_", "__2", "模型", "head"]
    for tag, row in zip(tags, monitor.report.rows, strict=True):
        [event] = events.Scalars(f"energy/{tag}")
        assert event.value == pytest.approx(row.energy)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="on PyTorch every step calls the model"
)
@pytest.mark.parametrize("epochs", [1, 5])
def test_roles_are_found_with_one_call_of_the_model_per_fit(epochs):
    calls = []

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3, name="head")

        def call(self, x):
            calls.append(x)
            return self.head(x)

    model = Model()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, epochs=1)
    before = len(calls)
    monitor = EnergyMonitor()
    fit(model, monitor, epochs=epochs)
    assert [row["role"] for row in monitor.history[-1]["rows"]] == ["output"]
    assert len(monitor.history) == epochs + 1
    assert len(calls) - before == 1


def test_non_finite_neurons_are_recorded_without_an_error(tmp_path):
    class AssignNaN(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("hidden").kernel.assign(np.full((6, 8), np.nan))

    monitor = EnergyMonitor(log_dir=tmp_path)
    train_model(AssignNaN(), monitor, epochs=1)
    assert monitor.report.summary["faulty_neurons"] >= 8
    assert monitor.history[-1]["rows"][0]["energy"] is None


def test_options_are_passed_to_the_report():
    monitor = EnergyMonitor(s=0, distance="angular", half_space=True, where="head")
    train_model(monitor, epochs=1)
    [row] = monitor.report.rows
    assert (row.layer, row.half_space, row.s, row.distance) == ("head", True, 0, "angular")


@pytest.mark.parametrize(
    ("every", "error"),
    [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("batch", TypeError), ([1], TypeError)],
)
def test_invalid_every_raises_a_clear_error(every, error):
    with pytest.raises(error, match='"epoch" or a positive number of steps'):
        EnergyMonitor(every=every)


def test_missing_tensorboardx_raises_a_clear_error_at_creation(tmp_path, monkeypatch):
    original_import = builtins.__import__

    def import_without_tensorboardx(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ModuleNotFoundError(name)
        return original_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_without_tensorboardx)
    with pytest.raises(ModuleNotFoundError, match=re.escape(install_advice("monitor"))):
        EnergyMonitor(log_dir=tmp_path)
    EnergyMonitor()
