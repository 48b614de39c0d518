"""`HypersphericalRegularization`: losses, learned state, training and saving."""

import functools
import itertools

import keras
import numpy as np
import oracle
import pytest
from helpers import energy_value, normals, on_compiled_and_other_steps
from keras import layers
from sklearn.datasets import load_digits
from subprocesses import run_on_two_devices

from keras_mhe import (
    MHE,
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    HypersphericalRegularization,
    energy_report,
    regularize,
)


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def build_wrapper(layer, regularizer, shape):
    wrapper = HypersphericalRegularization(layer, regularizer)
    wrapper.build(shape)
    return wrapper


def losses(layer):
    return [float(loss) for loss in layer.losses]


def angle_comhe(dim=3, **options):
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
    def test_loss_is_that_of_the_neuron_axis_and_groups_of_the_layer(
        self, name, layer, shape, axes
    ):
        layer = type(layer).from_config(layer.get_config())
        options = {"mhe": {}, "group": {"projection": GroupProjection(2)}}[name]
        cls = {"mhe": MHE, "group": CoMHE}[name]
        wrapper = build_wrapper(layer, cls(3.0, **options), shape)
        [loss] = losses(wrapper)
        expected = cls(3.0, **options, **axes)(layer.trainable_weights[0])
        assert loss == pytest.approx(float(expected))

    def test_each_kernel_of_a_layer_has_a_loss(self):
        layer = layers.LSTM(5)
        wrapper = build_wrapper(layer, HalfSpaceMHE(2.0), (None, 7, 3))
        kernels = (layer.cell.kernel, layer.cell.recurrent_kernel)
        expected = [2 * energy_value(kernel, half_space=True, groups=4) for kernel in kernels]
        assert losses(wrapper) == pytest.approx(expected)

    def test_attention_is_built_by_a_call_with_all_inputs(self):
        wrapper = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), MHE())
        wrapper(normals(1, 4, 5), value=normals(1, 6, 7))
        assert len(losses(wrapper)) == 4
        wrapper = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), MHE())
        query, value = inputs = keras.Input((4, 5)), keras.Input((6, 7))
        outputs = wrapper(query=query, value=value, key=None)
        assert keras.Model(inputs, outputs).output_shape == (None, 4, 5)
        with pytest.raises(ValueError, match="Call its wrapper with all inputs"):
            build_wrapper(layers.MultiHeadAttention(2, 3), MHE(), (None, 4, 5))

    def test_neuron_axis_of_the_regularizer_takes_precedence(self):
        wrapper = build_wrapper(layers.Dense(6), MHE(neuron_axis=0), (None, 5))
        expected = energy_value(wrapper.layer.kernel, neuron_axis=0)
        assert losses(wrapper) == pytest.approx([expected])

    def test_depthwise_filters_of_different_channels_compete_only_with_neuron_axis(self):
        depthwise, shape = layers.DepthwiseConv2D(3, depth_multiplier=3), (None, 9, 9, 4)
        wrapper = build_wrapper(depthwise, MHE(), shape)
        parts = [numpy(depthwise.kernel)[:, :, i] for i in range(4)]
        assert losses(wrapper) == pytest.approx([np.mean([energy_value(part) for part in parts])])
        with pytest.raises(ValueError, match=r"`neuron_axis=\(-2, -1\)`, or do not wrap the layer"):
            build_wrapper(layers.DepthwiseConv2D(3), MHE(), shape)
        across = build_wrapper(layers.DepthwiseConv2D(3), MHE(neuron_axis=-2), shape)
        assert losses(across) == pytest.approx([energy_value(across.layer.kernel, neuron_axis=-2)])

    def test_energy_is_added_to_other_regularizers(self):
        decay = keras.regularizers.L2(0.1)
        layer = layers.Dense(6, kernel_regularizer=decay, bias_regularizer=decay)
        wrapper = build_wrapper(layer, MHE() + keras.regularizers.L1(0.2), (None, 5))
        kernel = numpy(layer.kernel)
        expected = energy_value(kernel) + 0.1 * np.sum(kernel**2) + 0.2 * np.sum(np.abs(kernel))
        assert losses(wrapper) == pytest.approx([expected, 0])

    def test_two_nested_wrappers_add_both_energies(self):
        wrapper = build_wrapper(
            HypersphericalRegularization(layers.Dense(6), MHE(2.0)), angle_comhe(), (None, 5)
        )
        [loss] = losses(wrapper)
        inner = wrapper.layer
        inner.factor.assign(0.0)
        assert loss - losses(wrapper)[0] == pytest.approx(
            2 * energy_value(inner.layer.kernel), rel=1e-5
        )

    def test_new_wrapper_of_a_layer_replaces_the_energy_of_the_old_one(self):
        """This happens if a notebook cell runs twice."""
        layer = layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.1))
        build_wrapper(layer, MHE(2.0), (None, 5))
        expected = 3 * energy_value(layer.kernel) + 0.1 * np.sum(numpy(layer.kernel) ** 2)
        assert losses(build_wrapper(layer, MHE(3.0), (None, 5))) == pytest.approx([expected])

    def test_frozen_layer_has_no_loss_and_keeps_its_state(self):
        wrapper = build_wrapper(layers.Dense(6), angle_comhe(), (None, 5))
        wrapper.trainable = False
        before = numpy(wrapper.state["projection"])
        wrapper(normals(2, 5), training=True)
        assert losses(wrapper) == []
        np.testing.assert_array_equal(wrapper.state["projection"], before)

    def test_energy_counts_once_if_the_layer_is_called_several_times(self):
        wrapper = HypersphericalRegularization(layers.Dense(5), MHE())
        x = keras.Input((5,))
        model = keras.Model(x, wrapper(wrapper(x)) + wrapper(x))
        assert losses(model) == losses(wrapper)
        assert len(model.losses) == 1

    def test_outputs_are_those_of_the_layer(self):
        layer, x = layers.Conv2D(6, 3), normals(2, 9, 9, 4)
        expected = numpy(layer(x))
        for training in (None, False, True):
            wrapper = HypersphericalRegularization(layer, angle_comhe())
            np.testing.assert_array_equal(numpy(wrapper(x, training=training)), expected)

    def test_masks_are_passed_to_and_from_the_layer(self):
        ids = np.array([[1, 2, 0], [3, 0, 0]])
        embedding = layers.Embedding(9, 4, mask_zero=True)
        lstm = layers.LSTM(3)
        expected = numpy(lstm(embedding(ids)))
        wrap = HypersphericalRegularization
        np.testing.assert_array_equal(
            numpy(wrap(lstm, MHE())(wrap(embedding, MHE())(ids))), expected
        )


class TestName:
    def test_wrapper_has_the_name_of_its_layer(self):
        wrapper = HypersphericalRegularization(layers.Dense(4, name="head"), MHE())
        model = keras.Sequential([keras.Input((8,)), wrapper])
        assert model.get_layer("head") is wrapper
        [row] = energy_report(model).rows
        assert (row.layer, row.name) == ("head", "head")
        [row] = regularize(model, where="head").rows
        assert (row.layer, row.kernel) == ("head", "kernel")
        assert keras.models.clone_model(model).layers[0].name == "head"
        named = HypersphericalRegularization(wrapper.layer, MHE(), name="other")
        assert named.name == "other"
        assert HypersphericalRegularization.from_config(named.get_config()).name == "other"

    def test_variables_of_a_wrapper_in_a_wrapper_have_different_paths(self):
        inner = HypersphericalRegularization(layers.Dense(4, name="head"), MHE())
        model = keras.Sequential([keras.Input((8,)), HypersphericalRegularization(inner, MHE(s=0))])
        assert len({variable.path for variable in model.variables}) == len(model.variables)
        assert [row.layer for row in energy_report(model, where="head").rows] == [
            model.layers[0].name
        ]

    def test_wrappers_of_layers_with_automatic_names_have_different_names(self):
        wrappers = [HypersphericalRegularization(layers.Dense(4), MHE()) for _ in range(3)]
        inputs = keras.Input((4,))
        model = keras.Model(inputs, [wrapper(inputs) for wrapper in wrappers])
        assert len({layer.name for layer in model.layers}) == 4

    def test_files_of_wrappers_with_other_names_are_loaded(self, tmp_path):
        # Before, a wrapper without a name was called `hyperspherical_regularization`.
        def build(**options):
            layer = layers.Dense(4, name="head")
            wrapper = HypersphericalRegularization(layer, angle_comhe(dim=2), **options)
            return keras.Sequential([keras.Input((8,)), wrapper])

        old, new = build(name="hyperspherical_regularization"), build()
        old.save(tmp_path / "old.keras")
        old.save_weights(tmp_path / "old.weights.h5")
        loaded = keras.models.load_model(tmp_path / "old.keras")
        new.load_weights(tmp_path / "old.weights.h5")
        assert loaded.layers[0].name == "hyperspherical_regularization"
        for model in (loaded, new):
            for one, other in zip(old.get_weights(), model.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)


class TestFactor:
    def test_loss_is_proportional_to_the_factor(self):
        wrapper = build_wrapper(layers.Dense(6), MHE(3.0), (None, 5))
        [before] = losses(wrapper)
        wrapper.factor.assign(1.5)
        assert losses(wrapper) == pytest.approx([before / 2])

    def test_callback_can_change_the_factor_between_epochs(self):
        class WarmUp(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.layers[0].factor.assign(float(epoch))

        wrapper = HypersphericalRegularization(layers.Dense(6), MHE())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.zeros((8, 5), "float32")
        history = model.fit(x, np.zeros((8, 6)), epochs=3, verbose=0, callbacks=[WarmUp()])
        energy = energy_value(wrapper.layer.kernel)
        np.testing.assert_allclose(history.history["loss"], [0, energy, 2 * energy], rtol=1e-5)

    def test_callback_can_change_the_factor_between_batches(self):
        class Steps(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.model.layers[0].factor.assign(float(batch))

        wrapper = HypersphericalRegularization(layers.Dense(6), MHE())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        x = np.zeros((8, 5), "float32")
        history = model.fit(x, np.zeros((8, 6)), batch_size=2, verbose=0, callbacks=[Steps()])
        expected = 1.5 * energy_value(wrapper.layer.kernel)
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


def projection_and_matrix(wrapper):
    """The projection and the neuron matrix, in float64."""
    kernel = numpy(wrapper.layer.kernel)
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype("float64")
    return numpy(wrapper.state["projection"]).astype("float64"), matrix


class TestState:
    def test_state_has_the_expected_names_and_shapes(self):
        wrapper = build_wrapper(layers.Conv2D(6, 3), angle_comhe(4), (None, 9, 9, 3))
        assert {name: tuple(v.shape) for name, v in wrapper.state.items()} == {
            "projection": (4, 27)
        }
        recurrent = build_wrapper(layers.GRU(5), angle_comhe(2), (None, 7, 3))
        assert {name: tuple(v.shape) for name, v in recurrent.state.items()} == {
            "kernel/projection": (2, 3),
            "recurrent_kernel/projection": (2, 5),
        }
        assert build_wrapper(layers.Dense(6), angle_comhe(5), (None, 5)).state == {}
        assert build_wrapper(layers.Dense(6), CoMHE(), (None, 50)).state == {}

    @pytest.mark.slow
    def test_training_brings_projected_angles_closer_to_those_of_the_neurons(self):
        keras.utils.set_random_seed(0)
        model = compiled(network(angle_comhe(6, steps=3)))
        before, initial = projection_and_matrix(model.layers[2])
        model.fit(*digits(), batch_size=64, epochs=6, verbose=0)
        after, matrix = projection_and_matrix(model.layers[2])
        distance = oracle.cosine_distance(after, matrix)
        assert distance < 0.95 * oracle.cosine_distance(before, initial)
        # The projection improves too, not only the neurons.
        assert distance < 0.95 * oracle.cosine_distance(before, matrix)

    def test_training_an_adversarial_projection_increases_the_projected_energy(self):
        keras.utils.set_random_seed(0)
        model = compiled(network(CoMHE(projection=AdversarialProjection(6))))
        before, _ = projection_and_matrix(model.layers[2])
        model.fit(*digits(), batch_size=64, epochs=6, verbose=0)
        after, matrix = projection_and_matrix(model.layers[2])
        assert oracle.energy(after @ matrix) > 1.05 * oracle.energy(before @ matrix)

    @on_compiled_and_other_steps
    def test_state_after_each_compiled_step_matches_the_definition(self, jit_compile):
        keras.utils.set_random_seed(0)
        model = compiled(
            network(angle_comhe(6, learning_rate=0.3, steps=2)), jit_compile=jit_compile
        )
        wrapper = model.layers[2]
        for _ in range(2):
            projection, matrix = projection_and_matrix(wrapper)
            distance = functools.partial(oracle.cosine_distance, matrix=matrix)
            for _ in range(2):
                projection = projection - 0.3 * oracle.central_differences(distance, projection)
            model.train_on_batch(*digits())
            np.testing.assert_allclose(
                wrapper.state["projection"], projection, rtol=1e-3, atol=1e-4
            )

    def test_energy_without_unroll_is_that_of_the_stored_projection(self):
        wrapper = build_wrapper(layers.Dense(6), angle_comhe(unroll=False), (None, 5))
        projection, matrix = projection_and_matrix(wrapper)
        expected = energy_value((projection @ matrix).astype("float32"), half_space=True)
        assert losses(wrapper) == pytest.approx([expected], rel=1e-5)

    def test_state_is_updated_once_for_each_kernel_value_in_training(self):
        wrapper = build_wrapper(layers.Dense(5), angle_comhe(), (None, 5))
        x = normals(2, 5)

        def after_call():
            wrapper(x, training=True)
            return numpy(wrapper.state["projection"])

        initial = numpy(wrapper.state["projection"])
        wrapper(x)
        wrapper(x, training=False)
        np.testing.assert_array_equal(wrapper.state["projection"], initial)
        once = after_call()
        assert np.any(once != initial)
        np.testing.assert_array_equal(after_call(), once)
        wrapper.layer.kernel.assign_add(1e-3 * normals(5, 5))
        assert np.any(after_call() != once)

    @pytest.mark.parametrize("jit_compile", [pytest.param(True, marks=pytest.mark.slow), False])
    def test_shared_and_time_distributed_layers_update_the_state_once_per_step(self, jit_compile):
        """One training step; the layer is called once, three times, or for each time step."""

        def state_after_a_step(build):
            keras.utils.set_random_seed(0)
            wrapper = HypersphericalRegularization(layers.Dense(5, use_bias=False), angle_comhe())
            inputs = keras.Input((4, 5))
            model = keras.Model(inputs, build(wrapper, inputs))
            wrapper.layer.kernel.assign(normals(5, 5))
            wrapper.state["projection"].assign(normals(3, 5, seed=1))
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
            model.train_on_batch(normals(2, 4, 5), np.zeros((2, 4, 5), "float32"))
            assert len(model.losses) == 1
            return numpy(wrapper.state["projection"])

        expected = state_after_a_step(lambda wrapper, x: wrapper(x))
        for build in (
            lambda wrapper, x: wrapper(wrapper(wrapper(x))),
            lambda wrapper, x: layers.TimeDistributed(wrapper)(x),
        ):
            np.testing.assert_allclose(state_after_a_step(build), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "policy", ["mixed_bfloat16", pytest.param("bfloat16", marks=pytest.mark.slow)]
    )
    def test_state_of_half_precision_layers_is_float32_and_finite(self, policy):
        layer = layers.Dense(6, dtype=policy)
        wrapper = HypersphericalRegularization(layer, angle_comhe())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        compiled(model).train_on_batch(normals(4, 5), np.zeros(4))
        assert wrapper.state["projection"].dtype == "float32"
        assert np.all(np.isfinite(numpy(wrapper.state["projection"])))

    def test_mixed_precision_updates_the_state_with_the_float32_kernel(self):
        """The state does not depend on the dtype in which the layer computes."""
        projections = {}
        for policy in ("float32", "mixed_bfloat16"):
            wrapper = HypersphericalRegularization(layers.Dense(6, dtype=policy), angle_comhe())
            wrapper.build((None, 5))
            wrapper.layer.kernel.assign(normals(5, 6))
            wrapper.state["projection"].assign(normals(3, 5, seed=1))
            wrapper(normals(4, 5), training=True)
            projections[policy] = numpy(wrapper.state["projection"])
        np.testing.assert_array_equal(*projections.values())

    def test_gradient_accumulation_updates_the_state_once_per_kernel_update(self):
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
        wrapper = HypersphericalRegularization(layers.Dense(6), angle_comhe())
        model = keras.Sequential([keras.Input((5,)), wrapper])
        model.compile(optimizer, "mse")
        states = [numpy(wrapper.state["projection"])]
        for _ in range(5):
            model.train_on_batch(normals(4, 5), np.zeros((4, 6), "float32"))
            states.append(numpy(wrapper.state["projection"]))
        changed = [bool(np.any(a != b)) for a, b in itertools.pairwise(states)]
        assert changed == [True, False, False, True, False]


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = HypersphericalRegularization(layers.Dense(8), angle_comhe())
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


def functional():
    x = keras.Input((5,))
    y = HypersphericalRegularization(layers.Dense(8), angle_comhe() + keras.regularizers.L2(1e-3))(
        x
    )
    return keras.Model(x, layers.Dense(3)(y))


def nested():
    return keras.Sequential([keras.Input((5,)), functional()])


def recurrent():
    wrapper = HypersphericalRegularization(layers.LSTM(4), angle_comhe(2))
    return keras.Sequential([keras.Input((5,)), layers.RepeatVector(3), wrapper, layers.Dense(3)])


def attention():
    x = keras.Input((5,))
    sequence = layers.RepeatVector(3)(x)
    wrapper = HypersphericalRegularization(layers.MultiHeadAttention(2, 3), angle_comhe(2))
    y = layers.Flatten()(wrapper(sequence, sequence))
    return keras.Model(x, layers.Dense(3)(y))


def subclassed():
    return keras.saving.register_keras_serializable("tests")(Subclassed)()


class TestSaving:
    @pytest.mark.parametrize(
        "build",
        [functional]
        + [
            pytest.param(build, marks=pytest.mark.slow)
            for build in (nested, recurrent, attention, subclassed)
        ],
    )
    def test_loaded_model_has_equal_weights_and_continues_training(self, build, tmp_path):
        model = compiled(build())
        x, y = normals(12, 5), np.arange(12) % 3
        model.fit(x, y, batch_size=4, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert losses(loaded) == losses(model)
        for weight, expected in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
        # Training continues with the same result.
        for twin in (model, loaded):
            twin.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        for weight, expected in zip(loaded.weights, model.weights, strict=True):
            np.testing.assert_allclose(numpy(weight), numpy(expected), rtol=1e-5, atol=1e-6)

    def test_clone_has_its_own_weights_and_state(self):
        model = functional()
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        assert losses(twin) == losses(model)
        before = losses(model)
        compiled(twin).fit(normals(12, 5), np.arange(12) % 3, verbose=0)
        assert losses(model) == before

    def test_built_layer_keeps_its_weights(self):
        layer = layers.Dense(6)
        layer.build((None, 5))
        before = numpy(layer.kernel)
        wrapper = HypersphericalRegularization(layer, angle_comhe())
        wrapper(normals(2, 5))
        np.testing.assert_array_equal(layer.kernel, before)
        assert len(wrapper.losses) == 1

    def test_saved_weights_hold_the_state(self, tmp_path):
        model, twin = functional(), functional()
        model.save_weights(tmp_path / "model.weights.h5")
        twin.load_weights(tmp_path / "model.weights.h5")
        assert losses(twin) == losses(model)

    @pytest.mark.parametrize(
        "inner",
        [
            lambda: layers.Dense(4),
            lambda: layers.TimeDistributed(layers.Dense(4)),
            lambda: layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True)),
        ],
        ids=["Dense", "TimeDistributed", "Bidirectional"],
    )
    def test_weights_of_a_model_without_wrappers_are_loaded_before_wrapping(self, inner, tmp_path):
        def bare(layer):
            return keras.Sequential([keras.Input((3, 5)), layer, layers.Dense(3)])

        def wrapped(layer):
            return HypersphericalRegularization(layer, angle_comhe(2))

        path, saved = tmp_path / "bare.weights.h5", bare(inner())
        saved.save_weights(path)
        with pytest.raises(ValueError, match="Load the file into the model without wrappers"):
            bare(wrapped(inner())).load_weights(path)
        # Both models share the layer and its weights.
        layer = inner()
        plain, model = bare(layer), bare(wrapped(layer))
        plain.load_weights(path)
        x = normals(2, 3, 5)
        outputs = [numpy(each.layers[0](x)) for each in (model, saved)]
        np.testing.assert_array_equal(*outputs)
        # A file of a model with wrappers needs the wrappers.
        model.save_weights(tmp_path / "wrapped.weights.h5")
        with pytest.raises(ValueError, match="could not be loaded"):
            bare(inner()).load_weights(tmp_path / "wrapped.weights.h5")

    def test_tensorflow_checkpoints_hold_the_state(self, tmp_path):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("checkpoints of TensorFlow")
        import tensorflow as tf

        model, twin = functional(), functional()
        path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
        tf.train.Checkpoint(model=twin).restore(path).assert_existing_objects_matched()
        assert losses(twin) == losses(model)

    def test_weights_of_the_layer_come_first(self):
        """As in the wrappers of Keras: `get_weights()[0]` is the kernel."""
        wrapper = build_wrapper(layers.Dense(6), angle_comhe(), (None, 5))
        names = ["kernel", "bias", "factor", "projection_of_kernel", "seen_of_kernel"]
        assert [weight.name for weight in wrapper.weights] == names
        assert [variable.name for variable in wrapper.variables] == names
        kernel, bias, *_ = wrapper.get_weights()
        np.testing.assert_array_equal(kernel, wrapper.layer.kernel)
        np.testing.assert_array_equal(bias, wrapper.layer.bias)
        assert [weight.name for weight in wrapper.non_trainable_weights] == names[2:]
        wrapper.trainable = False
        # The order in HDF5 files of the format of Keras 2.
        assert [weight.name for weight in wrapper.non_trainable_weights] == names[2:] + names[:2]
        outer = build_wrapper(
            HypersphericalRegularization(layers.Dense(6), MHE()), MHE(), (None, 5)
        )
        assert [weight.name for weight in outer.weights] == ["kernel", "bias", "factor", "factor"]

    def test_config_restores_the_wrapper(self):
        wrapper = HypersphericalRegularization(
            layers.Dense(6), angle_comhe() + keras.regularizers.L2()
        )
        twin = HypersphericalRegularization.from_config(wrapper.get_config())
        assert twin.get_config() == wrapper.get_config()


class TestInvalidArguments:
    @pytest.mark.parametrize(
        "regularizer",
        [None, "l2", keras.regularizers.L2(), MHE() + angle_comhe(), lambda kernel: 0.0],
        ids=["none", "l2", "L2", "sum", "function"],
    )
    def test_other_regularizers_and_sums_of_two_raise_a_clear_error(self, regularizer):
        with pytest.raises(ValueError, match=r"`regularizer`.*Received: regularizer="):
            HypersphericalRegularization(layers.Dense(6), regularizer)

    def test_other_objects_than_layers_raise_a_clear_error(self):
        with pytest.raises(ValueError, match="layer"):
            HypersphericalRegularization("dense", MHE())

    def test_layers_without_neurons_raise_a_clear_error_when_built(self):
        with pytest.raises(ValueError, match="neither a kernel nor embeddings"):
            build_wrapper(layers.Dropout(0.5), MHE(), (None, 5))

    @pytest.mark.parametrize(
        "layer",
        [
            keras.Sequential([keras.Input((5,)), layers.Dense(6)]),
            keras.Sequential([layers.Dense(6)]),
            layers.TimeDistributed(keras.Sequential([layers.Dense(6)])),
        ],
        ids=["built", "not built", "inside a wrapper"],
    )
    def test_models_raise_an_error_that_points_to_regularize(self, layer):
        with pytest.raises(ValueError, match=r"Models are not wrapped.*`keras_mhe\.regularize"):
            build_wrapper(layer, MHE(), (None, 4, 5))

    def test_layers_made_of_layers_raise_an_error_that_points_to_regularize(self):
        class Block(layers.Layer):
            def __init__(self, **options):
                super().__init__(**options)
                self.dense = layers.Dense(6)

            def build(self, shape):
                self.dense.build(shape)

        with pytest.raises(ValueError, match=r"Wrap those, or .*`keras_mhe\.regularize"):
            build_wrapper(Block(), MHE(), (None, 5))

    def test_more_groups_than_coordinates_raise_a_clear_error_when_built(self):
        with pytest.raises(ValueError, match=r"kernel of <Dense.*count=4, neurons of 3 coord"):
            build_wrapper(layers.Dense(6), CoMHE(projection=GroupProjection(4)), (None, 3))


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
    # Learned state amplifies rounding errors.
    tolerance = 1e-3 if wrapper.state else 1e-5
    for got, expected in zip(model.get_weights(), one.get_weights()):
        if np.ndim(got):  # not the fingerprint of the last kernel
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
"""


@pytest.mark.slow
def test_replicas_stay_equal_and_match_one_device():
    """After 20 steps, replicas have equal weights and state, and weights match one device."""
    run_on_two_devices(_REPLICAS)
