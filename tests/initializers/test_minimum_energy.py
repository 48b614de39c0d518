"""The initializer: norms, axes and groups, seeds, dtypes, and use in layers and saved models."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mhe.energies._neurons import neuron_array
from keras_mhe.initializers import MinimumEnergy, prototypes

ALL_OPTIONS = {
    "scale": 2.0,
    "mode": "fan_in",
    "half_space": True,
    "s": 1.0,
    "neuron_axis": [0, 1],
    "groups": 2,
    "steps": 5,
    "seed": 3,
}


def kernel(shape, dtype=None, **options):
    return ops.convert_to_numpy(MinimumEnergy(**{"seed": 0} | options)(shape, dtype))


def cosines(matrix):
    unit = matrix / np.linalg.norm(matrix, axis=0)
    return (unit.T @ unit)[~np.eye(matrix.shape[1], dtype=bool)]


class TestNorms:
    @pytest.mark.parametrize("shape", [(64, 48), (3, 3, 8, 16), (5, 4, 6), (100, 10)])
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({}, keras.initializers.GlorotUniform),
            ({"scale": 2.0, "mode": "fan_in"}, keras.initializers.HeUniform),
        ],
    )
    def test_the_mean_square_is_that_of_glorot_and_he(self, shape, ours, theirs):
        found = kernel(shape, **ours)
        # The largest entry of uniform numbers is nearly the square root of 3 times their deviation.
        largest = max(
            np.max(np.abs(ops.convert_to_numpy(theirs(seed=seed)(shape)))) for seed in range(8)
        )
        root = np.sqrt(np.mean(np.square(found)))
        assert root == pytest.approx(largest / np.sqrt(3), rel=0.01)
        norms = np.linalg.norm(found.reshape(-1, shape[-1]), axis=0)
        np.testing.assert_allclose(norms, norms[0], rtol=1e-5)

    def test_norms_are_one_where_the_mean_square_is_one_by_the_number_of_coordinates(self):
        found = kernel((64, 10), scale=1.0, mode="fan_in")
        np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-6)

    def test_fan_out_counts_neurons(self):
        found = kernel((4, 36), scale=9.0, mode="fan_out")
        np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-6)

    @pytest.mark.parametrize(("mode", "fan"), [("fan_in", 8), ("fan_out", 6), ("fan_avg", 7)])
    def test_several_axes_of_neurons_are_all_outputs(self, mode, fan):
        found = kernel((8, 2, 3), neuron_axis=(1, 2), mode=mode)
        np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.sqrt(8 / fan), rtol=1e-6)

    @pytest.mark.parametrize("shape", [(8, 1), (1, 8), (1, 1), (3, 3, 1, 1)])
    def test_single_neurons_and_coordinates_have_the_same_norm(self, shape):
        found = kernel(shape)
        d = found.size // shape[-1]
        field = found.size // (shape[-1] * shape[-2])
        expected = np.sqrt(2 * d / (field * (shape[-2] + shape[-1])))
        norms = np.linalg.norm(found.reshape(-1, shape[-1]), axis=0)
        np.testing.assert_allclose(norms, expected, rtol=1e-6)

    def test_the_sign_of_a_single_weight_is_random(self):
        assert {np.sign(kernel((1, 1), seed=seed)).item() for seed in range(8)} == {-1, 1}


class TestAxes:
    @pytest.mark.parametrize(
        ("shape", "neuron_axis"),
        [((2, 2, 5, 8), -2), ((5, 32), 0), ((32, 5), [1]), ((8, 2, 2, 4), (1, 2)), ((5, 4, 8), 0)],
    )
    def test_neurons_are_along_the_axes(self, shape, neuron_axis):
        found = kernel(shape, neuron_axis=neuron_axis)
        [matrix] = neuron_array(found, neuron_axis)
        n = matrix.shape[1]
        np.testing.assert_allclose(cosines(matrix), -1 / (n - 1), atol=1e-6)
        norms = np.linalg.norm(matrix, axis=0)
        np.testing.assert_allclose(norms, norms[0], rtol=1e-6)

    def test_each_group_has_its_own_directions(self):
        groups = neuron_array(kernel((3, 3, 4, 24), groups=4, half_space=True), groups=4)
        assert groups.shape == (4, 36, 6)
        for matrix in groups:
            np.testing.assert_allclose(cosines(matrix), 0, atol=1e-6)
        assert np.max(np.abs(groups[0] - groups[1])) > 0.01

    @pytest.mark.parametrize(
        ("layer", "shape", "options"),
        [
            (layers.Dense, (4, 8), {}),
            (layers.Conv2D, (4, 6, 6, 2), {"kernel_size": 3}),
            (layers.Conv1D, (4, 6, 4), {"kernel_size": 3, "groups": 2}),
        ],
    )
    def test_kernels_of_layers(self, layer, shape, options):
        groups = options.get("groups")
        built = layer(6, **options, kernel_initializer=MinimumEnergy(groups=groups))
        built.build(shape)
        for matrix in neuron_array(built.kernel, groups=groups):
            np.testing.assert_allclose(cosines(matrix), -1 / (matrix.shape[1] - 1), atol=1e-6)

    def test_transposed_convolutions_embeddings_and_attention(self):
        start = MinimumEnergy(neuron_axis=-2)
        transposed = layers.Conv2DTranspose(5, 2, kernel_initializer=start)
        transposed.build((4, 6, 6, 3))
        embedding = layers.Embedding(9, 8, embeddings_initializer=MinimumEnergy(neuron_axis=0))
        embedding.build()
        attention = layers.MultiHeadAttention(
            2, 3, kernel_initializer=MinimumEnergy(half_space=True)
        )
        attention.build((4, 6, 8), (4, 6, 8))
        for weight, axis, cosine in (
            (transposed.kernel, -2, -1 / 4),
            (embedding.embeddings, 0, -1 / 8),
            (attention.query_dense.kernel, -1, 0),
        ):
            [matrix] = neuron_array(weight, axis)
            np.testing.assert_allclose(cosines(matrix), cosine, atol=1e-6)


class TestSeeds:
    def test_integers_and_none_return_one_kernel(self):
        for seed in (7, None, -1):
            start = MinimumEnergy(seed=seed)
            one, other = (ops.convert_to_numpy(start((8, 40))) for _ in range(2))
            np.testing.assert_array_equal(one, other)
        assert np.max(np.abs(kernel((8, 40), seed=1) - kernel((8, 40), seed=2))) > 0.1

    def test_none_follows_the_seed_of_keras(self):
        keras.utils.set_random_seed(3)
        one, other = (ops.convert_to_numpy(MinimumEnergy()((8, 4))) for _ in range(2))
        assert np.max(np.abs(one - other)) > 0.01
        keras.utils.set_random_seed(3)
        np.testing.assert_array_equal(ops.convert_to_numpy(MinimumEnergy()((8, 4))), one)

    def test_generators_give_another_kernel_in_each_call(self):
        def draws():
            start = MinimumEnergy(seed=keras.random.SeedGenerator(5))
            return [ops.convert_to_numpy(start((8, 4))) for _ in range(2)]

        one, other = draws()
        assert np.max(np.abs(one - other)) > 0.01
        np.testing.assert_array_equal(draws(), [one, other])

    def test_clones_are_those_of_keras(self):
        """An integer stays, and None draws a new integer."""
        for start in (MinimumEnergy(seed=4), keras.initializers.HeNormal(seed=4)):
            assert start.clone().get_config()["seed"] == 4
        for start in (MinimumEnergy(), keras.initializers.HeNormal()):
            one, other = (ops.convert_to_numpy(each((8, 4))) for each in (start, start.clone()))
            assert np.max(np.abs(one - other)) > 0.01

    def test_values_do_not_depend_on_the_backend(self):
        """The values were computed once; rounding may change the last digits."""
        expected = [[-0.846241, 0.673933, 0.172308], [-0.289613, -0.58806, 0.877673]]
        np.testing.assert_allclose(kernel((2, 3), seed=0), expected, atol=2e-6)


class TestDtypes:
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_narrow_dtypes_are_rounded_from_wide_ones(self, dtype):
        start = MinimumEnergy(seed=0)
        found, wide = start((8, 40), dtype), start((8, 40), "float32")
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        np.testing.assert_array_equal(
            ops.convert_to_numpy(ops.cast(found, "float32")),
            ops.convert_to_numpy(ops.cast(ops.cast(wide, dtype), "float32")),
        )

    def test_float64_has_all_digits(self, float64):
        found = kernel((8, 5), "float64")
        assert found.dtype == "float64"
        np.testing.assert_allclose(cosines(found), -1 / 4, atol=1e-14)

    def test_none_means_the_default_of_keras(self):
        assert kernel((4, 3)).dtype == keras.config.floatx()

    def test_integers_raise(self):
        with pytest.raises(ValueError, match=r"must be floating point\. Received: dtype=int32"):
            MinimumEnergy()((4, 3), "int32")


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"scale": 0}, ValueError, "Received: scale=0"),
            ({"mode": "fan"}, ValueError, "fan"),
            ({"s": -1}, ValueError, "Received: s=-1"),
            ({"half_space": 1}, TypeError, "Received: half_space=1"),
            ({"neuron_axis": "last"}, TypeError, "Received: neuron_axis='last'"),
            ({"groups": 0}, ValueError, "Received: groups=0"),
            ({"steps": -1}, ValueError, "Received: steps=-1"),
            ({"steps": 2.5}, TypeError, r"Received: steps=2\.5"),
            ({"seed": "zero"}, ValueError, "Received: seed=zero"),
        ],
    )
    def test_invalid_arguments_raise(self, options, error, message):
        with pytest.raises(error, match=message):
            MinimumEnergy(**options)

    @pytest.mark.parametrize(
        ("shape", "options", "message"),
        [
            ((4,), {}, r"at least two axes, .* Received: kernel\.shape=\(4,\)"),
            ((4, 6), {"groups": 4}, "must divide the number of neurons"),
            ((4, 6), {"neuron_axis": 2}, "names an axis that the kernel does not have"),
        ],
    )
    def test_unusable_shapes_raise(self, shape, options, message):
        with pytest.raises(ValueError, match=message):
            MinimumEnergy(**options)(shape)


class TestConfig:
    @pytest.mark.parametrize("options", [{}, ALL_OPTIONS])
    def test_a_config_makes_an_equal_initializer(self, options):
        start = MinimumEnergy(**options)
        assert options.items() <= start.get_config().items()
        config = json.loads(json.dumps(keras.initializers.serialize(start)))
        assert config["registered_name"] == "keras_mhe>MinimumEnergy"
        again = keras.initializers.get(config)
        assert again.get_config() == start.get_config()
        if options:
            shape = (4, 3, 9)
            np.testing.assert_array_equal(
                ops.convert_to_numpy(again(shape)), ops.convert_to_numpy(start(shape))
            )

    def test_a_generator_is_restored(self):
        config = keras.initializers.serialize(MinimumEnergy(seed=keras.random.SeedGenerator(5)))
        again = keras.initializers.get(json.loads(json.dumps(config)))
        one, other = (ops.convert_to_numpy(again((8, 4))) for _ in range(2))
        assert np.max(np.abs(one - other)) > 0.01

    def test_the_list_of_axes_is_a_copy(self):
        axes = [0, 1]
        start = MinimumEnergy(neuron_axis=axes)
        axes.append(2)
        assert start.get_config()["neuron_axis"] == [0, 1]


class TestScopes:
    def test_compiled_functions_get_the_same_values(self):
        start = MinimumEnergy(seed=0)
        expected = ops.convert_to_numpy(start((8, 40)))
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            compiled = tf.function(lambda: start((8, 40)), autograph=False)
        elif keras.backend.backend() == "jax":
            import jax

            # Keras does this for variables that are sharded.
            jitted = jax.jit(start.__call__, static_argnames=["shape", "dtype"])
            compiled = lambda: jitted(shape=(8, 40), dtype="float32")  # noqa: E731
        else:
            pytest.skip("initializers always run eagerly on PyTorch")
        np.testing.assert_array_equal(ops.convert_to_numpy(compiled()), expected)

    def test_symbolic_calls_of_a_layer_create_the_kernel_later(self):
        layer = layers.Dense(4, kernel_initializer=MinimumEnergy(seed=0))

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def call(self, inputs):
                return self.layer(inputs)

        assert Model()(np.ones((2, 8), "float32")).shape == (2, 4)
        np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), kernel((8, 4)))


class TestModels:
    def model(self, **options):
        head = layers.Dense(
            3, use_bias=False, trainable=False, kernel_initializer=MinimumEnergy(seed=1)
        )
        return keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(6, 3, kernel_initializer=MinimumEnergy(half_space=True), **options),
                layers.Flatten(),
                layers.Dense(2),
                head,
            ]
        )

    @pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
    def test_models_train_save_and_load(self, dtype, tmp_path):
        model = self.model(dtype=dtype)
        before = model.get_weights()
        model.compile("sgd", "mse", jit_compile=False)
        x = np.random.default_rng(0).standard_normal((8, 8, 8, 2)).astype("float32")
        model.fit(x, np.ones((8, 3)), verbose=0)
        after = model.get_weights()
        assert np.max(np.abs(after[0] - before[0])) > 0
        np.testing.assert_array_equal(after[-1], before[-1])
        np.testing.assert_allclose(cosines(after[-1]), -1 / 2, atol=1e-6)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for ours, theirs in zip(loaded.get_weights(), after, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        start = loaded.layers[0].kernel_initializer
        assert isinstance(start, MinimumEnergy)
        assert start.get_config() == model.layers[0].kernel_initializer.get_config()

    def test_cloned_models_start_again(self):
        model = self.model()
        clone = keras.models.clone_model(model)
        np.testing.assert_array_equal(clone.get_weights()[-1], model.get_weights()[-1])
        assert np.max(np.abs(clone.get_weights()[0] - model.get_weights()[0])) > 0

    def test_a_layer_of_half_precision_has_a_kernel_of_half_precision(self):
        layer = layers.Dense(4, dtype="float16", kernel_initializer=MinimumEnergy())
        layer.build((2, 8))
        assert layer.kernel.dtype == "float16"
        matrix = ops.convert_to_numpy(layer.kernel).astype("float32")
        np.testing.assert_allclose(cosines(matrix), -1 / 3, atol=2e-3)


@pytest.mark.parametrize(("classes", "dim"), [(10, 16), (10, 3), (10, 2)])
def test_frozen_heads_can_use_the_initializer_or_the_array(classes, dim):
    found = kernel((dim, classes), scale=1.0, mode="fan_in", seed=4)
    np.testing.assert_array_equal(found, prototypes(classes, dim, seed=4))
