"""Training on several devices and in several processes: weights are those of one device."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from replicas import run

pytestmark = pytest.mark.slow

# What all programs begin with: a small network that learns digits in 20 steps.
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
        # A fingerprint of the kernel tells any rounding.
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
    # The last axis is that of the neurons.
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
    '''Where variables are made: on the devices of an engine, or on one.'''
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(engine)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if engine is None else engine.scope()

def trained(engine, **regularizers):
    with on(engine):
        model = compiled(regularize(network(), **regularizers).model)
    return fit(model)

def trained_twice(engine, **regularizers):
    '''Without an energy first.'''
    with on(engine):
        model = fit(compiled(network()))
    # Where wrappers and their variables go the model itself knows.
    return fit(regularize(model, **regularizers).model)

def copies(variable):
    '''Lists of arrays that ought to be equal: one for each part of a variable.'''
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
# Rounding alone gives other draws than one device has, but the same draws everywhere.
assert_consistent(trained(engine, hidden=CoMHE(), output=MHE(10.0, sample=4)))
"""

_MONITORS = """
def monitored(engine, every):
    monitor = EnergyMonitor(every)
    with on(engine):
        model = compiled(regularize(network()).model)
    options = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
    logs = model.fit(x, y, callbacks=[monitor], **options).history
    assert len(logs["energy_position"]) == 2
    return monitor

for every, steps in (("epoch", [0, 20, 40]), (16, [0, 16, 20, 32, 40])):
    many, one = monitored(engine, every), monitored(None, every)
    assert [record["step"] for record in many.history] == steps
    for record, expected in zip(many.history, one.history, strict=True):
        for row, other in zip(record["rows"], expected["rows"], strict=True):
            assert row["neurons"] == other["neurons"]
            for value in ("position", "smallest", "mean"):
                np.testing.assert_allclose(row[value], other[value], rtol=1e-3, err_msg=value)
"""

_on_every_engine = pytest.mark.parametrize(
    "arguments",
    [("MirroredStrategy",), ("DataParallel",), ("ModelParallel", 2, 4)],
    ids=lambda arguments: "-".join(map(str, arguments)),
)


def run_on_engine(program, arguments):
    """Runs a program on two devices of TensorFlow or eight of JAX; its failure is the test's."""
    wanted = "tensorflow" if arguments[0] == "MirroredStrategy" else "jax"
    if keras.backend.backend() != wanted:
        pytest.skip(f"{arguments[0]} is an engine of {wanted}")
    result = run(_NETWORK + _ENGINES + program, *arguments, devices=8)
    assert result.returncode == 0, result.stderr


@_on_every_engine
def test_weights_after_20_steps_are_those_of_one_device(arguments):
    """`regularize` before training and after some, and with projections that learn.

    Copies of every variable, and of every part of one, agree bit for bit, with random draws too.
    """
    run_on_engine(_TRAININGS, arguments)


@_on_every_engine
def test_a_monitor_records_what_one_device_has(arguments):
    run_on_engine(_MONITORS, arguments)


# `model.fit`, as a user calls it.
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

# Keras's own training step, in a loop over batches that TensorFlow distributes.
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
    """Runs a program in two processes that know of each other; returns what they ended with."""
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


def assert_same_on_both(results, folder):
    for result in results:
        assert result.returncode == 0, result.stderr
    with np.load(folder / "0.npz") as first, np.load(folder / "1.npz") as second:
        assert len(first) > 0
        for name in first:
            assert np.all(np.isfinite(first[name]))
            np.testing.assert_array_equal(second[name], first[name])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an engine of tensorflow")
class TestMultiWorkerMirroredStrategy:
    def test_fit(self, tmp_path):
        """Where Keras itself cannot, a model without keras_mhe shows it."""
        results = run_on_two_workers(_FIT, "plain", tmp_path)
        for result in results:
            # Before the first step: `fit` has a tuple of distributed batches reduced to its mean.
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
        assert_same_on_both(results, tmp_path)
        assert_same_on_both(run_on_two_workers(_FIT, "regularized", tmp_path), tmp_path)

    def test_training_steps_in_a_loop(self, tmp_path):
        """Weights are those of one device; with random draws both workers have the same."""
        assert_same_on_both(run_on_two_workers(_LOOP, "regularized", tmp_path), tmp_path)
