"""What the monitor records is the model at that time, and other callbacks see it."""

import builtins
import csv

import keras
import numpy as np
import pytest
from keras import layers
from probes import normals
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_mhe import EnergyMonitor, energy_report

HEADLINES = ["energy_position", "worst_energy_position", "smallest_angle", "faulty_neurons"]


class Witness(keras.callbacks.Callback):
    """Keeps reports made at the end of each step, by its own count, from weights alone."""

    def __init__(self):
        super().__init__()
        self.positions = {}

    def on_train_begin(self, logs=None):
        self._see()

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self._see()

    def _see(self):
        report = energy_report(self.model)
        self.positions[len(self.positions)] = [row.position for row in report.rows]


def fit(model, *callbacks, epochs, **options):
    x, y = normals(50, 6), np.arange(50) % 3
    options = {"batch_size": 10, "verbose": 0, **options}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options)


def trained(*callbacks, epochs=3, steps_per_execution=1, accumulate=None):
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


def test_every_epoch_is_recorded_and_the_state_before_training():
    monitor, witness = EnergyMonitor(), Witness()
    _, history = trained(monitor, witness)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert positions(monitor) == [witness.positions[step] for step in (0, 5, 10, 15)]
    assert history.history["energy_position"] == [
        pytest.approx(np.mean(witness.positions[step])) for step in (5, 10, 15)
    ]


def test_steps_are_recorded_with_the_weights_of_that_step_and_ends_of_epochs_too():
    monitor, witness = EnergyMonitor(every=4), Witness()
    _, history = trained(monitor, witness)
    steps = [0, 4, 5, 8, 10, 12, 15]
    assert [r["step"] for r in monitor.history] == steps
    assert [r["epoch"] for r in monitor.history] == [0, 0, 1, 1, 2, 2, 3]
    assert positions(monitor) == [witness.positions[step] for step in steps]
    assert len({str(row) for row in positions(monitor)}) == 7
    # Other callbacks see numbers of the end of an epoch.
    assert history.history["energy_position"] == [
        pytest.approx(np.mean(witness.positions[step])) for step in (5, 10, 15)
    ]


def test_steps_executed_together_are_counted_each():
    monitor = EnergyMonitor(every=2)
    trained(monitor, steps_per_execution=5)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(0, 0), (1, 5), (2, 10), (3, 15)]


@pytest.mark.parametrize("every", ["epoch", 5])
def test_steps_whose_gradients_are_gathered_are_counted_each(every):
    monitor = EnergyMonitor(every)
    model, _ = trained(monitor, accumulate=5, epochs=2)
    again = EnergyMonitor(every)
    fit(model, monitor, epochs=1)
    fit(model, again, epochs=1)
    assert [r["step"] for r in monitor.history] == [0, 5, 10, 15]
    assert [r["step"] for r in again.history] == [15, 20]


def test_a_new_monitor_goes_on_where_training_does():
    model, _ = trained(epochs=2)
    monitor = EnergyMonitor()
    fit(model, monitor, initial_epoch=2, epochs=4)
    assert [(r["epoch"], r["step"]) for r in monitor.history] == [(2, 10), (3, 15), (4, 20)]


def test_models_that_are_built_at_their_first_step():
    model = keras.Sequential([layers.Dense(8, name="hidden"), layers.Dense(3, name="head")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monitor = EnergyMonitor()
    fit(model, monitor, epochs=2)
    # JAX builds it before that.
    assert [r["step"] for r in monitor.history][-2:] == [5, 10]
    assert monitor.history[-1]["rows"][0]["neurons"] == 8


def test_training_that_goes_on_is_recorded_on():
    monitor = EnergyMonitor()
    model, _ = trained(monitor)
    fit(model, monitor, initial_epoch=3, epochs=4)
    assert [(r["epoch"], r["step"]) for r in monitor.history][-2:] == [(3, 15), (4, 20)]


def test_other_callbacks_see_the_headlines(tmp_path):
    stopping = keras.callbacks.EarlyStopping("smallest_angle", mode="max", min_delta=1e3)
    path = tmp_path / "log.csv"
    _, history = trained(EnergyMonitor(), keras.callbacks.CSVLogger(path), stopping, epochs=9)
    assert len(history.epoch) == 2
    with path.open() as file:
        lines = list(csv.DictReader(file))
    for name in HEADLINES:
        assert [float(line[name]) for line in lines] == history.history[name]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a callback for tensorflow")
def test_the_tensorboard_of_keras_sees_the_headlines(tmp_path):
    trained(EnergyMonitor(), keras.callbacks.TensorBoard(tmp_path), epochs=1)
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert {f"epoch_{name}" for name in HEADLINES} <= set(events.Tags()["tensors"])


def test_training_is_the_same_with_and_without_it():
    with_it, _ = trained(EnergyMonitor(every=1))
    without, _ = trained()
    for one, other in zip(with_it.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("every", ["epoch", 5])
def test_tensorboard_reads_what_it_writes(tmp_path, every):
    monitor = EnergyMonitor(every=every, log_dir=tmp_path)
    model, _ = trained(monitor)
    # Within the second by which files are named.
    fit(model, monitor, epochs=1)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    expected = [record["rows"][0]["position"] for record in monitor.history]
    found = events.Scalars("position/hidden")
    assert [event.step for event in found] == [0, 5, 10, 15, 20]
    assert [event.value for event in found] == pytest.approx(expected)
    assert {*HEADLINES, "energy/head", "smallest_angle/head"} <= set(events.Tags()["scalars"])
    angles = events.Histograms("nearest_angle/hidden")[-1].histogram_value
    assert angles.num == 8
    assert angles.min == pytest.approx(monitor.history[-1]["rows"][0]["smallest"])


@pytest.mark.parametrize("times", [1, 5])
def test_a_model_is_not_called_for_every_record(times):
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
    fit(model, monitor, epochs=times)
    assert [row["role"] for row in monitor.history[-1]["rows"]] == ["output"]
    assert len(monitor.history) == times + 1
    assert len(calls) - before == 1


def test_neurons_that_are_not_finite_are_recorded_not_raised(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer("hidden").kernel.assign(np.full((6, 8), np.nan))

    monitor = EnergyMonitor(log_dir=tmp_path)
    trained(Break(), monitor, epochs=1)
    assert monitor.report.summary["faulty_neurons"] >= 8
    assert monitor.history[-1]["rows"][0]["energy"] is None


def test_options_are_those_of_the_report():
    monitor = EnergyMonitor(s=0, distance="angular", half_space=True, where="head")
    trained(monitor, epochs=1)
    [row] = monitor.report.rows
    assert (row.layer, row.half_space) == ("head", True)
    assert (monitor.report.s, monitor.report.distance) == (0, "angular")


@pytest.mark.parametrize(
    ("every", "error"),
    [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("batch", TypeError), ([1], TypeError)],
)
def test_bad_periods_end_in_a_sentence(every, error):
    with pytest.raises(error, match='"epoch" or a positive number of steps'):
        EnergyMonitor(every=every)


def test_tensorboardx_is_asked_for_at_once(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "keras-mhe\[monitor\]"'):
        EnergyMonitor(log_dir=tmp_path)
    EnergyMonitor()
