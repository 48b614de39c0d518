"""Training on several devices or in several processes gives the weights of one device."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from subprocesses import run

pytestmark = pytest.mark.slow

# The start of each program: a small network that trains on digits for 20 steps.
_NETWORK = """
import contextlib, sys
import keras, numpy as np
from keras import layers
from sklearn.datasets import load_digits
from keras_mhe import *

x, y = load_digits(n_class=8, return_X_y=True)
x, y = (x[:640] / 16).astype("float32"), y[:640]

def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(8),
        ]
    )

def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model

def fit(model):
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    return model

def assert_close(model, one):
    for weight, expected in zip(model.weights, one.weights, strict=True):
        # Any rounding changes the fingerprint of a kernel.
        if not weight.name.startswith("seen_of"):
            np.testing.assert_allclose(
                np.asarray(weight), np.asarray(expected), rtol=0, atol=1e-5, err_msg=weight.path
            )
"""

_ENGINES = """
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

def model_parallel(*shape):
    mesh = keras.distribution.DeviceMesh(
        shape, ["batch", "model"], keras.distribution.list_devices("cpu")
    )
    layouts = keras.distribution.LayoutMap(mesh)
    # The last axis indexes the neurons.
    layouts[r".*conv2d[^/]*/kernel$"] = (None, None, None, "model")
    layouts[r".*dense[^/]*/kernel$"] = (None, "model")
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")

name = sys.argv[1]
if name == "MirroredStrategy":
    engine = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert engine.num_replicas_in_sync == 2
elif name == "DataParallel":
    engine = keras.distribution.DataParallel()
    assert engine.device_mesh.shape == (8,)
else:
    engine = model_parallel(*map(int, sys.argv[2:]))

def on(engine):
    '''A context that creates variables on the devices of an engine; if None, on one device.'''
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(engine)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if engine is None else engine.scope()

def trained(engine, **regularizers):
    with on(engine):
        model = compiled(regularize(network(), **regularizers).model)
    return fit(model)

def trained_twice(engine, **regularizers):
    '''Trains once without an energy, then with it.'''
    with on(engine):
        model = fit(compiled(network()))
    # No scope is needed here: the model determines the devices of new variables.
    return fit(regularize(model, **regularizers).model)

def copies(variable):
    '''For each shard of a variable, the list of its copies.'''
    if keras.backend.backend() == "tensorflow":
        return [[np.asarray(copy) for copy in variable.value.values]]
    parts = {}
    for shard in variable.value.addressable_shards:
        parts.setdefault(str(shard.index), []).append(np.asarray(shard.data))
    return list(parts.values())

def assert_consistent(model):
    devices = 2 if keras.backend.backend() == "tensorflow" else 8
    for variable in [*model.weights, *model.optimizer.variables]:
        parts = copies(variable)
        assert sum(map(len, parts)) == devices, variable.path
        for first, *others in parts:
            assert np.all(np.isfinite(first)), variable.path
            for other in others:
                np.testing.assert_array_equal(other, first, err_msg=variable.path)
        if name == "ModelParallel" and variable.name == "kernel":
            sharding = variable.value.sharding
            assert sharding.spec[-1] == "model", sharding
            assert len(parts) == engine.device_mesh.shape[1] > 1, sharding
            assert parts[0][0].shape[-1] * len(parts) == variable.shape[-1]
"""

_TRAININGS = """
for train, regularizers in (
    (trained, {}),
    (trained_twice, {"hidden": CoMHE(projection="angle")}),
):
    model = train(engine, **regularizers)
    assert_consistent(model)
    assert_close(model, train(None, **regularizers))
# Rounding changes the random draws, so they differ from one device. All devices draw the same.
assert_consistent(trained(engine, hidden=CoMHE(), output=MHE(10.0, sample=4)))
"""

_MONITOR = """
def monitored(engine, every):
    monitor = EnergyMonitor(every)
    with on(engine):
        model = compiled(regularize(network()).model)
    options = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
    logs = model.fit(x, y, callbacks=[monitor], **options).history
    assert len(logs["position_mean"]) == 2
    return monitor

for every, steps in (("epoch", [0, 20, 40]), (16, [0, 16, 20, 32, 40])):
    many, one = monitored(engine, every), monitored(None, every)
    assert [record["step"] for record in many.history] == steps
    for record, expected in zip(many.history, one.history, strict=True):
        for row, other in zip(record["rows"], expected["rows"], strict=True):
            assert row["neurons"] == other["neurons"]
            for value in ("position", "nearest_angle_min", "nearest_angle_mean"):
                np.testing.assert_allclose(row[value], other[value], rtol=1e-3, err_msg=value)
"""

_UNIFORMITY = """
class OfHalves(Uniformity):
    '''The mean energy of both halves of a batch, on one device.'''

    def call(self, inputs, training=None):
        if training:
            halves = keras.ops.split(inputs, 2)
            self.add_loss(self.factor * sum(map(batch_energy, halves)) / 2)
        return inputs

def spread(engine, layer):
    with on(engine):
        model = network()
        model = compiled(keras.Sequential([*model.layers[:-1], layer(MHE(0.1)), model.layers[-1]]))
    # In five steps, rounding errors stay small.
    model.fit(x[:160], y[:160], batch_size=32, shuffle=False, verbose=0)
    return model

model = spread(engine, Uniformity)
# TensorFlow has the energy of each device's part of a batch, JAX the energy of the whole batch.
kinds = [OfHalves, Uniformity]
if keras.backend.backend() == "jax":
    kinds.reverse()
own, other = (spread(None, kind) for kind in kinds)
assert_close(model, own)
assert np.max(np.abs(np.asarray(model.weights[-2]) - np.asarray(other.weights[-2]))) > 1e-4
"""

_SCHEDULES = """
schedules = (
    lambda epoch, factor: factor * epoch,
    keras.optimizers.schedules.PolynomialDecay(20.0, 40, 0.0),
)

def scheduled(engine, schedule):
    with on(engine):
        model = network()
        model.layers[-1].kernel.regularizer = MHE(10.0)
        compiled(model)
    callbacks = [FactorSchedule(schedule)]
    options = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=callbacks, **options)
    return model

constant = scheduled(None, lambda epoch: 10.0)
for schedule in schedules:
    model, one = scheduled(engine, schedule), scheduled(None, schedule)
    assert_close(model, one)
    assert np.max(np.abs(np.asarray(one.weights[-2]) - np.asarray(constant.weights[-2]))) > 1e-3
"""

_on_every_engine = pytest.mark.parametrize(
    "arguments",
    [("MirroredStrategy",), ("DataParallel",), ("ModelParallel", 2, 4)],
    ids=lambda arguments: "-".join(map(str, arguments)),
)


def run_on_engine(program, arguments):
    """Runs a program on two devices of TensorFlow or eight of JAX; asserts that it succeeds."""
    backend = "tensorflow" if arguments[0] == "MirroredStrategy" else "jax"
    if keras.backend.backend() != backend:
        pytest.skip(f"{arguments[0]} is an engine of {backend}")
    result = run(_NETWORK + _ENGINES + program, *arguments, devices=8)
    assert result.returncode == 0, result.stderr


@_on_every_engine
def test_weights_after_training_match_one_device(arguments):
    """Models are regularized before or after a first training, also with learned projections.

    The copies of each variable or shard are equal bit for bit, also with random draws.
    """
    run_on_engine(_TRAININGS, arguments)


@_on_every_engine
def test_monitor_records_match_one_device(arguments):
    run_on_engine(_MONITOR, arguments)


@pytest.mark.parametrize("arguments", [("MirroredStrategy",), ("DataParallel",)])
def test_energy_of_a_batch_on_several_devices(arguments):
    run_on_engine(_UNIFORMITY, arguments)


@_on_every_engine
def test_factors_move_on_all_devices(arguments):
    run_on_engine(_SCHEDULES, arguments)


# Training by `model.fit`.
_FIT = """
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = network()
    if sys.argv[1] == "regularized":
        regularize(model)
    compiled(model)
fit(model)
np.savez(sys.argv[2], *model.get_weights())
one = network()
if sys.argv[1] == "regularized":
    regularize(one)
assert_close(model, fit(compiled(one)))
"""

# The training step of Keras in a loop over batches that TensorFlow distributes.
_LOOP = """
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2
batches = strategy.experimental_distribute_dataset(
    tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
)

def looped(**regularizers):
    with strategy.scope():
        model = compiled(regularize(network(), **regularizers).model)
        model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    for batch in batches:
        step(batch)
    assert np.asarray(model.optimizer.iterations) == 20
    return model

exact = looped()
assert_close(exact, fit(compiled(regularize(network()).model)))
random = looped(hidden=CoMHE(), output=MHE(10.0, sample=4))
np.savez(sys.argv[2], *exact.get_weights(), *random.get_weights())
"""


def run_on_two_workers(program, kind, folder):
    """Runs a program in two connected processes and returns their results."""
    with (
        socket.create_server(("localhost", 0)) as one,
        socket.create_server(("localhost", 0)) as two,
    ):
        workers = [f"localhost:{server.getsockname()[1]}" for server in (one, two)]

    def work(index):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        return run(_NETWORK + program, kind, folder / f"{index}.npz", TF_CONFIG=json.dumps(task))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, range(2)))


def assert_equal_on_both(results, folder):
    for result in results:
        assert result.returncode == 0, result.stderr
    with np.load(folder / "0.npz") as first, np.load(folder / "1.npz") as second:
        assert len(first) > 0
        for name in first:
            assert np.all(np.isfinite(first[name]))
            np.testing.assert_array_equal(second[name], first[name])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an engine of TensorFlow")
class TestMultiWorkerMirroredStrategy:
    def test_fit_gives_equal_weights_on_both_workers(self, tmp_path):
        """An expected failure if Keras cannot `fit` even a model without keras_mhe."""
        results = run_on_two_workers(_FIT, "plain", tmp_path)
        for result in results:
            # `fit` fails before the first step: it averages a tuple of distributed batches.
            error = re.search(
                r"^ValueError: Attempt to convert a value \(PerReplica.*"
                r"with an unsupported type .*PerReplica'>\) to a Tensor\.$",
                result.stderr,
                re.MULTILINE | re.DOTALL,
            )
            if result.returncode and error:
                message = re.sub(r"\(PerReplica:.*?\n}\)", "(PerReplica)", error[0], flags=re.S)
                pytest.xfail(
                    f"Keras {keras.__version__} cannot `fit` a model without keras_mhe on two "
                    f"workers: {message}"
                )
        assert_equal_on_both(results, tmp_path)
        assert_equal_on_both(run_on_two_workers(_FIT, "regularized", tmp_path), tmp_path)

    def test_training_loop_gives_equal_weights_on_both_workers(self, tmp_path):
        """Without random draws, the weights also match one device."""
        assert_equal_on_both(run_on_two_workers(_LOOP, "regularized", tmp_path), tmp_path)
