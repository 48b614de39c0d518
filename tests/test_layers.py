"""The wrapper: any layer, learned state, one energy, real models, saved and loaded."""

import functools
import itertools

import keras
import numpy as np
import oracle
import pytest
from keras import layers
from probes import normals, number
from replicas import run_on_two_devices
from sklearn.datasets import load_digits

from keras_mhe import (
    MHE,
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    HypersphericalRegularization,
)


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def wrapped(layer, regularizer, shape):
    wrapper = HypersphericalRegularization(layer, regularizer)
    wrapper.build(shape)
    return wrapper


def losses(layer):
    return [float(loss) for loss in layer.losses]


def angle(dim=3, **options):
    return CoMHE(projection=AngleProjection(dim, **options))


class TestLoss:
    @pytest.mark.parametrize(
        ("layer", "shape", "axes"),
        [
            (layers.Dense(6), (None, 5), {}),
            (layers.Conv2D(6, 3, groups=2), (None, 9, 9, 4), {"groups": 2}),
            (layers.Conv2DTranspose(6, 3), (None, 9, 9, 4), {"neuron_axis": -2}),
            (layers.Embedding(20, 4), (None, 7), {"neuron_axis": 0}),
            (layers.EinsumDense("ab,bcd->acd", (3, 4)), (None, 5), {"neuron_axis": (1, 2)}),
        ],
        ids=lambda x: type(x).__name__,
    )
    @pytest.mark.parametrize("name", ["mhe", "group"])
    def test_it_is_that_of_the_layers_own_neurons(self, name, layer, shape, axes):
        layer = type(layer).from_config(layer.get_config())
        options = {"mhe": {}, "group": {"projection": GroupProjection(2)}}[name]
        cls = {"mhe": MHE, "group": CoMHE}[name]
        wrapper = wrapped(layer, cls(3.0, **options), shape)
        [got] = losses(wrapper)
        bare = cls(3.0, **options, **axes)(layer.trainable_weights[0])
        assert got == pytest.approx(float(bare))

    def test_every_kernel_of_a_layer_counts(self):
        layer = layers.LSTM(5)
        wrapper = wrapped(layer, HalfSpaceMHE(2.0), (None, 7, 3))
        kernels = (layer.cell.kernel, layer.cell.recurrent_kernel)
        expected = [2 * number(kernel, half_space=True, groups=4) for kernel in kernels]
        assert losses(wrapper) == pytest.approx(expected)

    def test_attention_is_built_from_all_its_inputs(self):
        wrapper = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), MHE())
        wrapper(normals(1, 4, 5), value=normals(1, 6, 7))
        assert len(losses(wrapper)) == 4
        again = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), MHE())
        query, value = inputs = keras.Input((4, 5)), keras.Input((6, 7))
        outputs = again(query=query, value=value, key=None)
        assert keras.Model(inputs, outputs).output_shape == (None, 4, 5)
        with pytest.raises(ValueError, match="by a call of its wrapper"):
            wrapped(layers.MultiHeadAttention(2, 3), MHE(), (None, 4, 5))

    def test_what_the_regularizer_names_goes_first(self):
        wrapper = wrapped(layers.Dense(6), MHE(neuron_axis=0), (None, 5))
        expected = number(wrapper.layer.kernel, neuron_axis=0)
        assert losses(wrapper) == pytest.approx([expected])

    def test_filters_of_different_channels_compete_only_if_asked(self):
        depthwise, shape = layers.DepthwiseConv2D(3, depth_multiplier=3), (None, 9, 9, 4)
        wrapper = wrapped(depthwise, MHE(), shape)
        parts = [numpy(depthwise.kernel)[:, :, i] for i in range(4)]
        assert losses(wrapper) == pytest.approx([np.mean([number(part) for part in parts])])
        with pytest.raises(ValueError, match=r"`neuron_axis=\(-2, -1\)`, or leave the layer"):
            wrapped(layers.DepthwiseConv2D(3), MHE(), shape)
        asked = wrapped(layers.DepthwiseConv2D(3), MHE(neuron_axis=-2), shape)
        assert losses(asked) == pytest.approx([number(asked.layer.kernel, neuron_axis=-2)])

    def test_it_adds_to_other_regularizers(self):
        decay = keras.regularizers.L2(0.1)
        layer = layers.Dense(6, kernel_regularizer=decay, bias_regularizer=decay)
        wrapper = wrapped(layer, MHE() + keras.regularizers.L1(0.2), (None, 5))
        kernel = numpy(layer.kernel)
        expected = number(kernel) + 0.1 * np.sum(kernel**2) + 0.2 * np.sum(np.abs(kernel))
        assert losses(wrapper) == pytest.approx([expected, 0])

    def test_wrapped_twice_it_adds_two(self):
        wrapper = wrapped(
            HypersphericalRegularization(layers.Dense(6), MHE(2.0)), angle(), (None, 5)
        )
        [got] = losses(wrapper)
        inner = wrapper.layer
        inner.factor.assign(0.0)
        assert got - losses(wrapper)[0] == pytest.approx(2 * number(inner.layer.kernel), rel=1e-5)

    def test_wrapped_anew_it_adds_what_the_new_wrapper_says(self):
        """As where a cell of a notebook is run again."""
        layer = layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1))
        wrapped(layer, MHE(2.0), (None, 5))
        expected = 3 * number(layer.kernel) + 0.1 * np.sum(numpy(layer.kernel) ** 2)
        assert losses(wrapped(layer, MHE(3.0), (None, 5))) == pytest.approx([expected])

    def test_a_frozen_layer_adds_nothing_and_learns_nothing(self):
        wrapper = wrapped(layers.Dense(6), angle(), (None, 5))
        wrapper.trainable = False
        before = numpy(wrapper.state["projection"])
        wrapper(normals(2, 5), training=True)
        assert losses(wrapper) == []
        np.testing.assert_array_equal(wrapper.state["projection"], before)

    def test_the_energy_counts_once_however_often_the_layer_is_called(self):
        wrapper = HypersphericalRegularization(layers.Dense(5), MHE())
        x = keras.Input((5,))
        model = keras.Model(x, wrapper(wrapper(x)) + wrapper(x))
        assert losses(model) == losses(wrapper)
        assert len(model.losses) == 1

    def test_outputs_stay_as_they_are(self):
        layer, x = layers.Conv2D(6, 3), normals(2, 9, 9, 4)
        expected = numpy(layer(x))
        for training in (None, False, True):
            wrapper = HypersphericalRegularization(layer, angle())
            np.testing.assert_array_equal(numpy(wrapper(x, training=training)), expected)

    def test_masks_pass(self):
        ids = np.array([[1, 2, 0], [3, 0, 0]])
        embedding = layers.Embedding(9, 4, mask_zero=True)
        lstm = layers.LSTM(3)
        expected = numpy(lstm(embedding(ids)))
        wrap = HypersphericalRegularization
        np.testing.assert_array_equal(
            numpy(wrap(lstm, MHE())(wrap(embedding, MHE())(ids))), expected
        )


class TestFactor:
    def test_it_weighs_the_energy(self):
        wrapper = wrapped(layers.Dense(6), MHE(3.0), (None, 5))
        [before] = losses(wrapper)
        wrapper.factor.assign(1.5)
        assert losses(wrapper) == pytest.approx([before / 2])

    def test_a_callback_warms_it_up_in_compiled_steps(self):
        class WarmUp(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.layers[0].factor.assign(float(epoch))

        wrapper = HypersphericalRegularization(layers.Dense(6), MHE())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.zeros((8, 5), "float32")
        history = model.fit(x, np.zeros((8, 6)), epochs=3, verbose=0, callbacks=[WarmUp()])
        energy = number(wrapper.layer.kernel)
        np.testing.assert_allclose(history.history["loss"], [0, energy, 2 * energy], rtol=1e-5)

    def test_a_callback_changes_it_between_batches(self):
        class Steps(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if keras.backend.backend() == "jax":
                    self.model.jax_state_sync()
                self.model.layers[0].factor.assign(float(batch))

        wrapper = HypersphericalRegularization(layers.Dense(6), MHE())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.zeros((8, 5), "float32")
        history = model.fit(x, np.zeros((8, 6)), batch_size=2, verbose=0, callbacks=[Steps()])
        expected = 1.5 * number(wrapper.layer.kernel)
        assert history.history["loss"] == pytest.approx([expected], rel=1e-5)


def digits():
    images, labels = load_digits(return_X_y=True)
    return (images[:256] / 16).astype("float32"), labels[:256]


def network(regularizer):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            HypersphericalRegularization(layers.Conv2D(20, 3, activation="relu"), regularizer),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    return model


def compiled(model, rate=0.1, **options):
    model.compile(
        keras.optimizers.SGD(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def projected(wrapper):
    """The matrix of neurons and the projection, in float64."""
    kernel = numpy(wrapper.layer.kernel)
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    return numpy(wrapper.state["projection"]).astype("float64"), matrix


class TestLearning:
    def test_state_is_named_and_shaped(self):
        wrapper = wrapped(layers.Conv2D(6, 3), angle(4), (None, 9, 9, 3))
        assert {name: tuple(v.shape) for name, v in wrapper.state.items()} == {
            "projection": (4, 27)
        }
        recurrent = wrapped(layers.GRU(5), angle(2), (None, 7, 3))
        assert {name: tuple(v.shape) for name, v in recurrent.state.items()} == {
            "kernel/projection": (2, 3),
            "recurrent_kernel/projection": (2, 5),
        }
        assert wrapped(layers.Dense(6), angle(5), (None, 5)).state == {}
        assert wrapped(layers.Dense(6), CoMHE(), (None, 50)).state == {}

    @pytest.mark.slow
    def test_real_training_brings_angles_closer_to_those_of_the_neurons(self):
        keras.utils.set_random_seed(0)
        model = compiled(network(angle(6, steps=3)))
        before, initial = projected(model.layers[2])
        model.fit(*digits(), batch_size=64, epochs=6, verbose=0)
        after, matrix = projected(model.layers[2])
        distance = oracle.cosine_distance(after, matrix)
        assert distance < 0.95 * oracle.cosine_distance(before, initial)
        # Not the neurons alone have moved.
        assert distance < 0.95 * oracle.cosine_distance(before, matrix)

    def test_real_training_crowds_the_neurons_of_the_adversary(self):
        keras.utils.set_random_seed(0)
        model = compiled(network(CoMHE(projection=AdversarialProjection(6))))
        before, _ = projected(model.layers[2])
        model.fit(*digits(), batch_size=64, epochs=6, verbose=0)
        after, matrix = projected(model.layers[2])
        assert oracle.energy(after @ matrix) > 1.05 * oracle.energy(before @ matrix)

    @pytest.mark.parametrize("jit_compile", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_each_compiled_step_is_that_of_the_definition(self, jit_compile):
        keras.utils.set_random_seed(0)
        model = compiled(network(angle(6, learning_rate=0.3, steps=2)), jit_compile=jit_compile)
        wrapper = model.layers[2]
        for _ in range(2):
            projection, matrix = projected(wrapper)
            distance = functools.partial(oracle.cosine_distance, matrix=matrix)
            for _ in range(2):
                projection = projection - 0.3 * oracle.slopes(distance, projection)
            model.train_on_batch(*digits())
            np.testing.assert_allclose(
                wrapper.state["projection"], projection, rtol=1e-3, atol=1e-4
            )

    def test_without_unrolling_the_energy_is_that_of_the_projection(self):
        wrapper = wrapped(layers.Dense(6), angle(unroll=False), (None, 5))
        projection, matrix = projected(wrapper)
        expected = number((projection @ matrix).astype("float32"), half_space=True)
        assert losses(wrapper) == pytest.approx([expected], rel=1e-5)

    def test_a_kernel_teaches_once_however_often_the_layer_is_called(self):
        wrapper = wrapped(layers.Dense(5), angle(), (None, 5))
        x = normals(2, 5)

        def after_call():
            wrapper(x, training=True)
            return numpy(wrapper.state["projection"])

        untouched = numpy(wrapper.state["projection"])
        wrapper(x)
        wrapper(x, training=False)
        np.testing.assert_array_equal(wrapper.state["projection"], untouched)
        once = after_call()
        assert np.any(once != untouched)
        np.testing.assert_array_equal(after_call(), once)
        wrapper.layer.kernel.assign_add(1e-3 * normals(5, 5))
        assert np.any(after_call() != once)

    @pytest.mark.parametrize("jit_compile", [pytest.param(True, marks=pytest.mark.slow), False])
    def test_shared_and_time_distributed_layers_learn_as_any_other(self, jit_compile):
        """One step of training on the same kernel, called once, three times and over time."""

        def learned(build):
            keras.utils.set_random_seed(0)
            wrapper = HypersphericalRegularization(layers.Dense(5, use_bias=False), angle())
            inputs = keras.Input((4, 5))
            model = keras.Model(inputs, build(wrapper, inputs))
            wrapper.layer.kernel.assign(normals(5, 5))
            wrapper.state["projection"].assign(normals(3, 5, seed=1))
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
            model.train_on_batch(normals(2, 4, 5), np.zeros((2, 4, 5), "float32"))
            assert len(model.losses) == 1
            return numpy(wrapper.state["projection"])

        expected = learned(lambda wrapper, x: wrapper(x))
        for build in (
            lambda wrapper, x: wrapper(wrapper(wrapper(x))),
            lambda wrapper, x: layers.TimeDistributed(wrapper)(x),
        ):
            np.testing.assert_allclose(learned(build), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "policy", ["mixed_bfloat16", pytest.param("bfloat16", marks=pytest.mark.slow)]
    )
    def test_narrow_layers_learn(self, policy):
        layer = layers.Dense(6, dtype=policy)
        wrapper = HypersphericalRegularization(layer, angle())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        compiled(model).train_on_batch(normals(4, 5), np.zeros(4))
        assert wrapper.state["projection"].dtype == "float32"
        assert np.all(np.isfinite(numpy(wrapper.state["projection"])))

    def test_mixed_precision_learns_from_the_kernel_as_it_is_stored(self):
        """Not from the kernel as the layer computes with it."""
        learned = {}
        for policy in ("float32", "mixed_bfloat16"):
            wrapper = HypersphericalRegularization(layers.Dense(6, dtype=policy), angle())
            wrapper.build((None, 5))
            wrapper.layer.kernel.assign(normals(5, 6))
            wrapper.state["projection"].assign(normals(3, 5, seed=1))
            wrapper(normals(4, 5), training=True)
            learned[policy] = numpy(wrapper.state["projection"])
        np.testing.assert_array_equal(*learned.values())

    def test_it_learns_once_for_each_update_of_the_kernel(self):
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        wrapper = HypersphericalRegularization(layers.Dense(6), angle())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(optimizer, "mse")
        seen = [numpy(wrapper.state["projection"])]
        for _ in range(5):
            model.train_on_batch(normals(4, 5), np.zeros((4, 6), "float32"))
            seen.append(numpy(wrapper.state["projection"]))
        moved = [bool(np.any(a != b)) for a, b in itertools.pairwise(seen)]
        assert moved == [True, False, False, True, False]


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = HypersphericalRegularization(layers.Dense(8), angle())
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


def functional():
    x = keras.Input((5,))
    y = HypersphericalRegularization(layers.Dense(8), angle() + keras.regularizers.L2(1e-3))(x)
    return keras.Model(x, layers.Dense(3)(y))


def nested():
    return keras.Sequential([keras.Input((5,)), functional()])


def recurrent():
    wrapper = HypersphericalRegularization(layers.LSTM(4), angle(2))
    return keras.Sequential([keras.Input((5,)), layers.Reshape((5, 1)), wrapper, layers.Dense(3)])


def attention():
    x = keras.Input((5,))
    sequence = layers.Reshape((5, 1))(x)
    wrapper = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), angle(2))
    y = layers.Flatten()(wrapper(sequence, sequence))
    return keras.Model(x, layers.Dense(3)(y))


def subclassed():
    return keras.saving.register_keras_serializable("tests")(Subclassed)()


class TestModels:
    @pytest.mark.parametrize(
        "build",
        [functional]
        + [
            pytest.param(build, marks=pytest.mark.slow)
            for build in (nested, recurrent, attention, subclassed)
        ],
    )
    def test_saved_and_loaded_with_its_state(self, build, tmp_path):
        model = compiled(build())
        x, y = normals(12, 5), np.arange(12) % 3
        model.fit(x, y, batch_size=4, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert losses(loaded) == losses(model)
        for weight, expected in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
        # It goes on as if it had not stopped.
        for twin in (model, loaded):
            twin.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        for weight, expected in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_allclose(numpy(weight), numpy(expected), rtol=1e-5, atol=1e-6)

    def test_clones_have_their_own(self):
        model = functional()
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        assert losses(twin) == losses(model)
        before = losses(model)
        compiled(twin).fit(normals(12, 5), np.arange(12) % 3, verbose=0)
        assert losses(model) == before

    def test_a_built_layer_keeps_its_weights(self):
        layer = layers.Dense(6)
        layer.build((None, 5))
        before = numpy(layer.kernel)
        wrapper = HypersphericalRegularization(layer, angle())
        wrapper(normals(2, 5))
        np.testing.assert_array_equal(layer.kernel, before)
        assert len(wrapper.losses) == 1

    def test_weights_only(self, tmp_path):
        model, twin = functional(), functional()
        model.save_weights(tmp_path / "model.weights.h5")
        twin.load_weights(tmp_path / "model.weights.h5")
        assert losses(twin) == losses(model)

    def test_checkpoints_of_tensorflow_hold_the_state(self, tmp_path):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("checkpoints of TensorFlow")
        import tensorflow as tf

        model, twin = functional(), functional()
        path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
        tf.train.Checkpoint(model=twin).restore(path).assert_existing_objects_matched()
        assert losses(twin) == losses(model)

    def test_config_round_trip(self):
        wrapper = HypersphericalRegularization(layers.Dense(6), angle() + keras.regularizers.L2())
        twin = HypersphericalRegularization.from_config(wrapper.get_config())
        assert twin.get_config() == wrapper.get_config()


class TestArguments:
    @pytest.mark.parametrize(
        "regularizer",
        [None, "l2", keras.regularizers.L2(), MHE() + angle(), lambda kernel: 0.0],
        ids=["none", "l2", "L2", "two", "function"],
    )
    def test_one_regularizer_of_this_package(self, regularizer):
        with pytest.raises(ValueError, match=r"`regularizer`.*Received: regularizer="):
            HypersphericalRegularization(layers.Dense(6), regularizer)

    def test_only_layers_are_wrapped(self):
        with pytest.raises(ValueError, match="layer"):
            HypersphericalRegularization("dense", MHE())

    def test_layers_without_neurons_are_refused_when_built(self):
        with pytest.raises(ValueError, match="neither a kernel nor embeddings"):
            wrapped(layers.Dropout(0.5), MHE(), (None, 5))

    def test_more_groups_than_coordinates_are_refused_when_built(self):
        with pytest.raises(ValueError, match=r"kernel of <Dense.*count=4, neurons of 3 coord"):
            wrapped(layers.Dense(6), CoMHE(projection=GroupProjection(4)), (None, 3))


_REPLICAS = """
import sys
import keras, numpy as np
from keras import layers
from keras_mhe import *

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    scope = strategy.scope
else:
    import contextlib
    scope = contextlib.nullcontext

def trained(regularizer, replicas):
    if keras.backend.backend() == "jax":
        distribution = keras.distribution.DataParallel() if replicas else None
        keras.distribution.set_distribution(distribution)
    with scope() if replicas else contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        wrapper = HypersphericalRegularization(layers.Dense(12), regularizer)
        model = keras.Sequential([keras.Input((9,)), wrapper, layers.Dense(4)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 9)), rng.standard_normal((40, 4))
    model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    return model, wrapper

def copies(variable):
    if keras.backend.backend() == "tensorflow":
        return [np.asarray(copy) for copy in variable.value.values]
    return [np.asarray(shard.data) for shard in variable.value.addressable_shards]

import contextlib
for projection in (
    RandomProjection(4, 3, resample=False),
    RandomProjection(4, 3),
    AngleProjection(4),
    AdversarialProjection(4, steps=2),
):
    regularizer = CoMHE(projection=projection)
    model, wrapper = trained(regularizer, True)
    for variable in [wrapper.layer.kernel, *wrapper.state.values()]:
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second)
    if projection == RandomProjection(4, 3):
        continue
    one, _ = trained(regularizer, False)
    # What learns multiplies what rounding does.
    tolerance = 1e-3 if wrapper.state else 1e-5
    for got, expected in zip(model.get_weights(), one.get_weights()):
        if np.ndim(got):  # not the fingerprint of the last kernel
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
"""


@pytest.mark.slow
def test_replicas_stay_equal_and_do_what_one_device_does():
    """20 steps: draws agree, learned projections agree, weights are those of one device."""
    run_on_two_devices(_REPLICAS)
