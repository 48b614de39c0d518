"""Energies of random groups of neurons, and of the classes of a batch."""

import functools
import itertools
import math
import re
from pathlib import Path

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, energy_and_gradient, normals, on_compiled_and_other_steps
from subprocesses import run_on_two_devices

from keras_mhe import MHE, HalfSpaceMHE, class_energy
from keras_mhe._backend import compiled
from keras_mhe.energies import _minibatch
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._programs import fresh_programs
from keras_mhe.energies._riesz import RieszPotential


def sampled_value_and_gradient(kernel, sample, **options):
    regularizer = MHE(1.0, sample=sample, bounded=False, **options)
    return value_and_gradient(regularizer, kernel)


def class_value_and_gradient(kernel, labels, s=2, **options):
    return value_and_gradient(
        lambda k: class_energy(k, labels, s, bounded=False, **options), kernel
    )


class TestSample:
    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize(("shape", "sample"), [((3, 5), 2), ((2, 3, 4), 2)])
    def test_mean_over_all_draws_is_the_energy(
        self, shape, sample, half_space, monkeypatch, float64
    ):
        kernel = normals(*shape, dtype="float64")  # three axes: two groups of four
        tensor = keras.ops.convert_to_tensor(kernel)
        potential = PotentialSpec(half_space=half_space).of_neurons(tensor)

        def draw(order):
            monkeypatch.setattr(keras.random, "shuffle", lambda x, seed: order)
            value, tangent, reciprocal = _minibatch._sampled_value_and_tangent(
                tensor, potential, sample
            )
            return value, tangent * reciprocal

        program = compiled(draw, ((shape[-1],), "int32"))
        draws = [
            program(keras.ops.convert_to_tensor(np.array(order, "int32")))
            for order in itertools.permutations(range(shape[-1]))
        ]
        values, gradients = (
            np.mean([keras.ops.convert_to_numpy(x) for x in xs], axis=0)
            for xs in zip(*draws, strict=True)
        )
        groups = np.concatenate(kernel, -1) if len(shape) == 3 else kernel
        value, gradient = energy_and_gradient(
            groups, half_space=half_space, groups=max(1, len(shape) * 2 - 4)
        )
        assert values == pytest.approx(value, rel=1e-9)
        gradients = np.concatenate(gradients, -1) if len(shape) == 3 else gradients
        np.testing.assert_allclose(gradients, gradient, rtol=1e-9, atol=1e-12)

    def test_groups_are_a_function_of_the_weights(self):
        kernel = normals(4, 40)
        draws = {
            sampled_value_and_gradient(kernel * np.float32(1 + i / 2**20), 5)[0]
            for i in (0, 1, 2, 3, 0, 1, 2, 3)
        }
        assert len(draws) == 4

    def test_neurons_left_over_after_grouping_get_no_gradient(self):
        _, gradient = sampled_value_and_gradient(normals(4, 40), 12)
        assert np.sum(~np.any(gradient, axis=0)) == 40 - 3 * 12

    @pytest.mark.parametrize("sample", [40, 1000])
    def test_sample_of_all_neurons_gives_the_exact_energy(self, sample):
        kernel = normals(4, 40)
        value, gradient = sampled_value_and_gradient(kernel, sample)
        expected_value, expected = energy_and_gradient(kernel)
        assert value == expected_value
        np.testing.assert_array_equal(gradient, expected)

    def test_sampling_respects_neuron_axis_and_groups(self):
        value, gradient = sampled_value_and_gradient(normals(40, 3, 4), 5, neuron_axis=0, groups=2)
        assert math.isfinite(value)
        assert np.all(np.any(gradient, axis=(1, 2)))

    def test_degenerate_kernels_give_finite_values_and_gradients(self):
        for kernel in (np.zeros((3, 9)), np.ones((3, 9)), 1e30 * normals(3, 9)):
            value, gradient = sampled_value_and_gradient(
                kernel.astype("float32"), 4, half_space=True
            )
            assert math.isfinite(value)
            assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("sample_groups", [None, 2])
    @on_compiled_and_other_steps
    def test_training_steps_that_change_weights_draw_new_groups(self, jit_compile, sample_groups):
        def losses(rate):
            energy = HalfSpaceMHE(1.0, sample=6, sample_groups=sample_groups)
            layer = keras.layers.Dense(
                60,
                kernel_regularizer=energy,
                kernel_initializer=keras.initializers.RandomNormal(seed=1),
            )
            model = keras.Sequential([keras.Input((5,)), layer])
            model.compile(
                keras.optimizers.SGD(rate), lambda y, p: 0.0 * p[:, 0], jit_compile=jit_compile
            )
            x, y = np.ones((8, 5), "float32"), np.zeros((8, 1), "float32")
            return [float(model.train_on_batch(x, y)) for _ in range(6)]

        changing, constant = losses(1e-6), losses(0.0)
        assert len(set(changing)) == 6
        # New groups change the loss far more than such a small step.
        assert np.ptp(changing) > 1e-3
        # On several threads, old versions of XLA round differently in each run.
        assert np.ptp(constant) < 1e-6
        assert losses(1e-6) == changing

    def test_config_keeps_the_sample(self):
        for regularizer in (MHE(2.0, sample=16), HalfSpaceMHE(2.0, sample=16)):
            config = keras.regularizers.serialize(regularizer)
            assert keras.regularizers.deserialize(config).sample == 16

    @pytest.mark.parametrize(
        ("sample", "error"),
        [(1, ValueError), (0, ValueError), (-3, ValueError), (2.5, TypeError), ("8", TypeError)],
    )
    def test_invalid_samples_are_named_in_the_error(self, sample, error):
        with pytest.raises(error, match=r"`sample`.*Received: sample="):
            MHE(1.0, sample=sample)


class TestClassEnergy:
    """The energy of the classes of a batch against all other classes."""

    @pytest.mark.parametrize(
        ("labels", "ignore_class"),
        [
            ((3, 0, 3, 4), None),
            ((3, -1, 3, 0), -1),
            ((3, 0, 3, 0), 0),
            ((3, 255, 255, 255), 255),
            ((3, 0, 3, 4), -100),
        ],
        ids=["all", "negative", "class", "one", "none"],
    )
    @pytest.mark.parametrize(
        ("s", "distance", "half_space"),
        [
            (0, "angular", True),
            (1, "euclidean", True),
            (2, "angular", False),
            (2.5, "euclidean", False),
        ],
    )
    def test_value_and_gradient_match_the_definition(
        self, s, distance, half_space, labels, ignore_class, float64
    ):
        kernel = normals(3, 5, seed=1, dtype="float64")

        def expected(kernel):
            unit = kernel / np.linalg.norm(kernel, axis=0)
            points = np.concatenate([unit, -unit], axis=1) if half_space else unit
            energies = [
                oracle.pair_energy(points[:, i], points[:, j], s, distance, 0.7**2)
                for i in labels
                if i != ignore_class
                for j in range(points.shape[1])
                if j != i
            ]
            return np.mean(energies)

        differences = oracle.central_differences(expected, kernel, step=1e-5)
        options = {"distance": distance, "half_space": half_space, "softening": 0.7}
        for seen in (labels, keras.ops.convert_to_tensor(np.array(labels, "int32"))):
            value, gradient = class_value_and_gradient(
                kernel, seen, s, ignore_class=ignore_class, **options
            )
            assert value == pytest.approx(expected(kernel), rel=1e-8)
            np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("half_space", SPACES)
    def test_energy_of_all_classes_is_the_hyperspherical_energy(self, half_space):
        kernel = normals(4, 30)
        value, gradient = class_value_and_gradient(kernel, np.arange(30), half_space=half_space)
        expected_value, expected = energy_and_gradient(kernel, half_space=half_space)
        assert value == pytest.approx(expected_value, rel=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)

    def test_the_factor_multiplies_the_energy(self):
        kernel, labels = normals(6, 9), np.array([0, 3, 3])
        one, three = (
            class_value_and_gradient(kernel, labels, factor=factor)[0] for factor in (1.0, 3.0)
        )
        assert three == pytest.approx(3 * one, rel=1e-6)

    def test_panels_of_classes_do_not_change_the_result(self, monkeypatch, float64):
        kernel = normals(4, 300, dtype="float64")
        labels = np.array([299, 0, 64, 64, 150])
        whole = class_value_and_gradient(kernel, labels)
        monkeypatch.setattr(_minibatch, "_CLASSES", 100)
        with fresh_programs():
            parts = class_value_and_gradient(kernel, labels)
        assert parts[0] == pytest.approx(whole[0], rel=1e-12)
        np.testing.assert_allclose(parts[1], whole[1], rtol=1e-9, atol=1e-12)

    def test_classes_outside_the_batch_do_not_repel_each_other(self):
        # All classes are orthogonal, so the slope is the same for each of them.
        kernel = np.eye(6, 5, dtype="float32")
        _, gradient = class_value_and_gradient(kernel, [2])
        slope = 2 * (1 / 2) ** 2 / 4  # slope of (2 - 2c)^-1 at 0, over N - 1
        np.testing.assert_allclose(gradient[2, [0, 1, 3, 4]], slope, rtol=1e-6)
        np.testing.assert_allclose(gradient[[0, 1, 3, 4], 2], slope, rtol=1e-6)
        # Pairs of classes outside the batch add nothing.
        assert gradient[0, 1] == gradient[3, 4] == 0

    def test_labels_of_any_shape_and_numeric_dtype_are_accepted(self):
        kernel = normals(4, 7)
        expected = class_value_and_gradient(kernel, [1, 2, 6])[0]
        for labels in (
            np.array([[1], [2], [6]], "uint8"),
            np.array([1, 2, 6], "int64"),
            np.array([1, 2, 6], "float32"),
            keras.ops.convert_to_tensor(np.array([[1], [2], [6]], "float32")),
            keras.ops.convert_to_tensor(np.array([1, 2, 6], "int32")),
        ):
            assert class_value_and_gradient(kernel, labels)[0] == expected

    @pytest.mark.parametrize(
        ("labels", "ignore_class"),
        [
            (np.array([[1], [-1], [6]], "int64"), -1),
            (np.array([[1, 2, 0], [6, 0, 0]], "uint8"), 0),
            (np.array([1, 255, 255, 6], "uint8"), 255),
            (np.array([[1.0], [-100.0], [6.0]], "float32"), -100),
        ],
        ids=["column", "padded", "unsigned", "float"],
    )
    def test_labels_of_any_shape_and_dtype_can_be_ignored(self, labels, ignore_class):
        kernel = normals(4, 7)
        expected = class_value_and_gradient(kernel, labels[labels != ignore_class].astype("int32"))
        for seen in (labels, keras.ops.convert_to_tensor(labels, labels.dtype.name)):
            value, gradient = class_value_and_gradient(kernel, seen, ignore_class=ignore_class)
            assert value == pytest.approx(expected[0], rel=1e-6)
            np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("half_space", SPACES)
    def test_energy_is_zero_if_all_examples_are_ignored(self, half_space):
        kernel, labels = normals(4, 7), np.array([-1, -1, -1], "int32")
        for seen in (labels, keras.ops.convert_to_tensor(labels)):
            value, gradient = class_value_and_gradient(
                kernel, seen, half_space=half_space, ignore_class=-1
            )
            assert value == 0
            np.testing.assert_array_equal(gradient, np.zeros_like(kernel))

    def test_other_labels_that_are_not_classes_stay_invalid(self):
        kernel = normals(4, 7)
        for labels in ([1, -1, -2], [1, -1, 7], [-1, -1, 7], [1.0, -1.0, 0.5]):
            with pytest.raises(ValueError, match="Argument `labels` must"):
                class_energy(kernel, labels, ignore_class=-1)
            tensor = keras.ops.convert_to_tensor(np.array(labels))
            assert math.isnan(class_value_and_gradient(kernel, tensor, ignore_class=-1)[0])

    @pytest.mark.parametrize(
        ("ignore_class", "error"),
        [(True, TypeError), (-1.0, TypeError), ("-1", TypeError), (2**31, ValueError)],
    )
    def test_invalid_ignored_classes_are_named_in_the_error(self, ignore_class, error):
        with pytest.raises(error, match=r"`ignore_class`.*integer.*Received: ignore_class="):
            class_energy(normals(4, 7), [1, 2, 6], ignore_class=ignore_class)

    def test_neuron_axis_selects_the_axis_of_classes(self):
        kernel = normals(4, 7)
        value, gradient = class_value_and_gradient(kernel.T, [1, 2], neuron_axis=0)
        expected_value, expected = class_value_and_gradient(kernel, [1, 2])
        assert value == expected_value
        np.testing.assert_array_equal(gradient, expected.T)

    @pytest.mark.parametrize("half_space", SPACES)
    def test_degenerate_kernels_give_finite_values_and_gradients(self, half_space):
        for kernel in (np.zeros((3, 4)), np.ones((3, 4)), 1e30 * normals(3, 4), normals(3, 1)):
            value, gradient = class_value_and_gradient(
                kernel.astype("float32"), [0, 0], half_space=half_space
            )
            assert math.isfinite(value)
            assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("label", [-1, 7, 0.5])
    def test_labels_that_are_not_classes_raise_an_error_or_give_nan(self, label):
        kernel = normals(4, 7)
        with pytest.raises(ValueError, match="Argument `labels` must"):
            class_energy(kernel, [0, label])
        tensor = keras.ops.convert_to_tensor(np.array([0, label]))
        value, gradient = class_value_and_gradient(kernel, tensor)
        assert math.isnan(value)
        assert np.all(np.isnan(gradient))

    @pytest.mark.parametrize(
        ("labels", "error"),
        [
            (np.eye(3, dtype="float32"), TypeError),
            ([0.5, 1.0], ValueError),
            ([math.nan, 1.0], ValueError),
            ([True, False], TypeError),
            (["cat", "dog"], TypeError),
            (np.zeros((0,), "int32"), ValueError),
        ],
    )
    def test_invalid_labels_are_named_in_the_error(self, labels, error):
        with pytest.raises(error, match=r"`labels`.*Received: labels"):
            class_energy(normals(4, 7), labels)

    def test_labels_beyond_int32_do_not_wrap_around(self):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("JAX has 64-bit integers only if they are enabled")
        tensor = keras.ops.convert_to_tensor(np.array([2**32 + 1, 1]), "int64")
        assert math.isnan(class_value_and_gradient(normals(4, 7), tensor)[0])

    def test_batch_of_unknown_size_can_be_empty(self):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("only TensorFlow supports unknown sizes")
        import tensorflow as tf

        kernel = tf.constant(normals(4, 7))
        for half_space in SPACES:
            options = {"half_space": half_space, "ignore_class": -1}

            def energy(labels, options=options):
                with tf.GradientTape() as tape:
                    tape.watch(kernel)
                    value = class_energy(kernel, labels, **options)
                return value, tape.gradient(value, kernel)

            program = tf.function(energy)
            program = program.get_concrete_function(tf.TensorSpec((None,), "int32"))
            for labels in (tf.zeros((0,), "int32"), tf.constant([-1, -1])):
                value, gradient = program(labels)
                assert value == 0
                assert not np.any(gradient)
            for labels in ([1, 2], [-1, 1, 2, -1, -1]):
                value, gradient = program(tf.constant(labels))
                assert value == class_energy(kernel, [1, 2], half_space=half_space)
                assert np.all(np.isfinite(gradient))
            assert math.isnan(program(tf.constant([-1, 7]))[0])

    def test_labels_can_be_traced_inside_a_differentiated_function(self):
        if keras.backend.backend() != "jax":
            pytest.skip("jit and checkpoint are transformations of JAX")
        import jax

        kernel, labels = normals(4, 7), np.array([1, 2, 6], "int32")
        expected = class_value_and_gradient(kernel, labels)[1]
        for function in (jax.jit(class_energy), jax.checkpoint(class_energy)):
            np.testing.assert_allclose(jax.grad(function)(kernel, labels), expected, rtol=1e-6)
        gradient = jax.jit(jax.grad(functools.partial(class_energy, ignore_class=6)))
        np.testing.assert_array_equal(gradient(kernel, np.array([6, 6, 6], "int32")), 0.0)

    def test_second_derivatives_raise_a_clear_error(self):
        if keras.backend.backend() != "jax":
            pytest.skip("all backends run the same code; the test is shortest on JAX")
        import jax

        square = jax.grad(lambda k: (jax.grad(lambda k: class_energy(k, [1, 2]))(k) ** 2).sum())
        with pytest.raises(NotImplementedError, match="Second derivatives are not available"):
            square(normals(4, 7))


class TestDocumentation:
    """The examples of docs/large_layers.md run."""

    @pytest.mark.slow
    @pytest.mark.once
    def test_example_trains_a_classifier_of_100000_classes(self, tmp_path):
        page = (Path(__file__).parents[2] / "docs" / "large_layers.md").read_text()
        small, few, large = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        names = {}
        exec(small, names)
        assert names["layer"].kernel_regularizer.sample == 256
        exec(few, names)
        assert names["embedding"].embeddings_regularizer.sample_groups == 1
        exec(large, names)
        model, history = names["model"], names["history"]
        assert model.head.kernel.shape == (64, 100_000)
        first, last = history.history["loss"]
        assert last < first
        # It loads in a process that has defined the class, which is registered.
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded) is names["Classifier"]
        assert loaded.factor == 10.0
        np.testing.assert_array_equal(loaded.head.kernel, model.head.kernel)
        # The loss is the cross entropy plus 10 times the energy.
        with_energy = model.evaluate(names["features"], names["labels"], batch_size=320, verbose=0)
        model.factor = 0.0
        model.compile(loss=model.loss)
        without_energy = model.evaluate(
            names["features"], names["labels"], batch_size=320, verbose=0
        )
        expected = class_energy(model.head.kernel, names["labels"])
        assert with_energy - without_energy == pytest.approx(
            10 * float(keras.ops.convert_to_numpy(expected)), rel=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_results_do_not_depend_on_the_default_dtype_of_keras(dtype):
    kernel, large = normals(4, 29), normals(3, 1450)

    def estimate(matrix):
        potential = RieszPotential(2.0, False, False, 0.1)
        return _minibatch.sampled_program(matrix, potential, 5).energy(matrix)

    def energies():
        with fresh_programs():
            return [
                energy_and_gradient(large),
                value_and_gradient(estimate, kernel),
                class_value_and_gradient(kernel, np.array([1, 2, 28])),
            ]

    expected = energies()
    keras.config.set_floatx(dtype)
    try:
        got = energies()
    finally:
        keras.config.set_floatx("float32")
    for (value, gradient), (other_value, other_gradient) in zip(got, expected, strict=True):
        assert value == other_value
        np.testing.assert_array_equal(gradient, other_gradient)


_REPLICAS = """
import keras, numpy as np
from keras_mhe import MHE, class_energy

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
else:
    import contextlib
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    scope = contextlib.nullcontext()

class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        initializer = keras.initializers.RandomNormal(seed=0)
        self.head = keras.layers.Dense(
            60, kernel_regularizer=MHE(1.0, sample=6), kernel_initializer=initializer
        )
    def call(self, x):
        return self.head(x)
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + class_energy(self.head.kernel, y)

with scope:
    model = Classifier()
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
x = np.random.default_rng(0).standard_normal((40, 5)).astype("float32")
y = np.arange(40) % 60
history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False)
assert np.all(np.isfinite(history.history["loss"]))
kernel = model.head.kernel.value
if keras.backend.backend() == "tensorflow":
    copies = [np.asarray(copy) for copy in kernel.values]
else:
    copies = [np.asarray(shard.data) for shard in kernel.addressable_shards]
assert len(copies) == 2, copies
np.testing.assert_array_equal(*copies)
"""


@pytest.mark.slow
def test_replicas_draw_equal_groups_and_keep_equal_weights():
    run_on_two_devices(_REPLICAS)
