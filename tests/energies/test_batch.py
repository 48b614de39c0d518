"""`batch_energy`: points of a batch, classes, masks, and programs for any size."""

from unittest import mock

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import energy_and_gradient, normals, on_every_potential, on_some_potentials
from keras import ops

from keras_mhe import batch_energy
from keras_mhe._backend import has_compiler
from keras_mhe.energies import _pair_sums, _programs
from keras_mhe.energies._batch import _padding
from keras_mhe.energies._programs import fresh_programs

DIMENSION = 5
# Sizes within one padded size, so that all tests use one program for a potential.
SIZES = [1, 2, 7, 16]


def features(n, dtype="float32", seed=0):
    return normals(n, DIMENSION, seed=seed, dtype=dtype)


def batch_value(x, *args, **options):
    return float(ops.convert_to_numpy(batch_energy(x, *args, **options)))


def batch_gradient(x, *args, **options):
    return value_and_gradient(lambda x: batch_energy(x, *args, **options), x)


def with_unknown_size(function):
    """A compiled function of features whose number of rows its program does not know."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, DIMENSION))]
        return tf.function(function, input_signature=signature, jit_compile=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


class TestValue:
    @on_every_potential
    def test_energy_is_the_mean_over_pairs_of_rows(self, s, distance, half_space):
        x = features(7)
        count = 14 if half_space else 7
        epsilon = oracle.auto_epsilon(count, DIMENSION)
        expected = oracle.energy(x.T, s, distance, half_space, epsilon)
        value = batch_value(x, s=s, distance=distance, half_space=half_space)
        assert value == pytest.approx(expected, rel=2e-6)

    @pytest.mark.parametrize("n", [*SIZES, 40, 300])
    def test_energy_and_gradient_are_those_of_neurons_in_rows(self, n):
        x = features(n)
        value, gradient = batch_gradient(x)
        expected, expected_gradient = energy_and_gradient(x, neuron_axis=0)
        assert value == pytest.approx(expected, rel=1e-6)
        scale = np.max(np.abs(expected_gradient))
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5 * scale, rtol=0)

    @on_some_potentials
    def test_panels_give_the_same(self, s, distance, half_space):
        x, options = features(90), {"s": s, "distance": distance, "half_space": half_space}
        counted = np.arange(90) % 3 > 0
        with (
            mock.patch.multiple(_pair_sums, _CPU_MATRIX=32, _CPU_PANEL=16, _EAGER_MATRIX=32),
            mock.patch.multiple(_pair_sums, _DEVICE_MATRIX=32, _DEVICE_PANEL=16),
            fresh_programs(),
        ):
            value, gradient = batch_gradient(x, mask=counted, **options)
        expected, expected_gradient = batch_gradient(x[counted], **options)
        assert value == pytest.approx(expected, rel=2e-6)
        scale = np.max(np.abs(expected_gradient))
        np.testing.assert_allclose(gradient[counted], expected_gradient, atol=1e-5 * scale, rtol=0)
        assert not np.any(gradient[~counted])

    @pytest.mark.parametrize("half_space", [False, True])
    def test_gaussian_energy_is_the_uniformity_loss(self, half_space):
        x = features(7)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        points = np.concatenate([unit, -unit]) if half_space else unit
        square = np.sum((points[:, None] - points[None, :]) ** 2, axis=-1)
        pairs = ~np.eye(len(points), dtype=bool)
        expected = np.log(np.mean(np.exp(-3.0 * square[pairs])))
        value = batch_value(x, distance="gaussian", t=3.0, half_space=half_space)
        assert value == pytest.approx(expected, rel=1e-5)

    def test_further_axes_count_as_more_points(self):
        x = features(16)
        assert batch_value(x.reshape(2, 8, DIMENSION)) == batch_value(x)

    @pytest.mark.parametrize(("half_space", "expected"), [(False, 0.0), (True, 0.25)])
    def test_one_point_has_the_energy_of_its_own_pair(self, half_space, expected):
        value, gradient = batch_gradient(features(1), half_space=half_space)
        assert value == expected
        assert not np.any(gradient)

    def test_an_empty_batch_has_no_energy(self):
        value, gradient = batch_gradient(features(0))
        assert value == 0.0
        assert gradient.shape == (0, DIMENSION)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_gradient_has_the_dtype_of_the_features(self, dtype, float64):
        x = ops.cast(ops.convert_to_tensor(features(7)), dtype)
        value, _ = batch_gradient(x)
        same = np.asarray(ops.convert_to_numpy(x), "float64")
        expected = oracle.energy(same.T, epsilon=oracle.auto_epsilon(7, DIMENSION))
        assert value == pytest.approx(expected, rel=1e-13 if dtype == "float64" else 1e-6)

    def test_no_second_derivatives(self):
        def squared_gradient(x):
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    tape.watch(x)
                    value = batch_energy(x)
                return ops.sum(tape.gradient(value, x) ** 2)
            if keras.backend.backend() == "jax":
                import jax

                return ops.sum(jax.grad(batch_energy)(x) ** 2)
            import torch

            [gradient] = torch.autograd.grad(batch_energy(x), x, create_graph=True)
            return ops.sum(gradient**2)

        with pytest.raises(NotImplementedError, match="Second derivatives are not available"):
            value_and_gradient(squared_gradient, features(7))


class TestNearDuplicates:
    """Public reports of infinite losses: KoLeo in facebookresearch/dinov2, issues 101 and 143."""

    @on_every_potential
    @pytest.mark.parametrize("distance_between", [0.0, 1e-20, 1e-7])
    def test_energy_and_gradient_are_finite(self, s, distance, half_space, distance_between):
        x = features(16)
        x[1] = x[0] + distance_between
        x[2] = -x[0]
        value, gradient = batch_gradient(x, s=s, distance=distance, half_space=half_space)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))

    def test_a_batch_of_one_image_repeated_is_finite(self):
        value, gradient = batch_gradient(np.repeat(features(1), 16, axis=0))
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))

    def test_near_duplicates_move_apart(self):
        x = features(16)
        x[1] = x[0] + 0.01
        _, gradient = batch_gradient(x)
        assert np.sum((x[1] - x[0]) * (gradient[1] - gradient[0])) < 0

    def test_a_zero_point_has_no_gradient(self):
        x = features(7)
        x[3] = 0.0
        value, gradient = batch_gradient(x)
        assert np.isfinite(value)
        assert not np.any(gradient[3])


class TestMask:
    @pytest.mark.parametrize("half_space", [False, True])
    def test_only_points_that_count_are_in_the_energy(self, half_space):
        x, counted = features(16), np.arange(16) % 3 > 0
        # The softening depends on the number of points, which shows for close ones.
        x[2] = x[1] + 0.01
        value, gradient = batch_gradient(x, mask=counted, half_space=half_space)
        expected, expected_gradient = batch_gradient(x[counted], half_space=half_space)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradient[counted], expected_gradient, atol=1e-6)
        assert not np.any(gradient[~counted])

    def test_other_points_may_be_nan(self):
        x, counted = features(16), np.arange(16) < 7
        x[~counted] = np.nan
        value, gradient = batch_gradient(x, mask=counted)
        assert value == pytest.approx(batch_value(x[:7]), rel=1e-6)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_points_have_no_energy(self, count):
        value, gradient = batch_gradient(features(16), mask=np.arange(16) < count)
        assert value == 0.0
        assert not np.any(gradient)


class TestLabels:
    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
    def test_points_are_the_means_of_classes(self, dtype):
        x, labels = features(16), np.array([3, 3, 0, 7, 0, 200, 3, 7] * 2, dtype)
        means = np.stack([x[labels == k].mean(axis=0) for k in (0, 3, 7, 200)])
        assert batch_value(x, labels) == pytest.approx(batch_value(means), rel=1e-6)
        assert batch_value(x, labels[:, None]) == batch_value(x, labels)

    def test_gradient_of_a_point_is_its_share_of_the_mean(self):
        x, labels = features(16), np.arange(16) // 5
        means = np.stack([x[labels == k].mean(axis=0) for k in range(4)])
        _, gradient = batch_gradient(x, labels)
        _, of_means = batch_gradient(means)
        sizes = np.bincount(labels)
        np.testing.assert_allclose(
            gradient, (of_means / sizes[:, None])[labels], atol=1e-6 * np.max(np.abs(of_means))
        )

    def test_labels_may_be_negative(self):
        x, labels = features(16), np.arange(16) % 4
        assert batch_value(x, labels - 2) == pytest.approx(batch_value(x, labels), rel=1e-6)

    def test_masked_points_belong_to_no_class(self):
        x, labels, counted = features(16), np.arange(16) % 4, np.arange(16) % 5 > 0
        # All points of a class may be masked.
        counted &= labels != 2
        expected = batch_value(x[counted], labels[counted])
        assert batch_value(x, labels, mask=counted) == pytest.approx(expected, rel=1e-6)

    def test_different_labels_give_the_energy_of_the_points(self):
        x = features(16)
        assert batch_value(x, np.arange(16)[::-1]) == pytest.approx(batch_value(x), rel=1e-6)


class TestSizes:
    """One program serves batches of many sizes."""

    def test_few_padded_sizes_with_at_most_a_quarter_more_points(self):
        sizes = [n + _padding(n) for n in range(1, 5000)]
        assert all(n <= size <= max(n + 15, 1.25 * n) for n, size in enumerate(sizes, 1))
        # Four sizes between two powers of two, from 64 on.
        assert len(set(sizes)) <= 4 + 4 * np.ceil(np.log2(5000 / 64))

    @pytest.mark.skipif(not has_compiler(), reason="nothing is compiled")
    def test_sizes_that_are_close_share_a_program(self):
        with fresh_programs():
            for n in range(49, 65, 3):
                batch_value(features(n))
                batch_value(features(n), mask=np.arange(n) % 2 == 0)
            assert _programs._lookup.cache_info().currsize == 1

    @pytest.mark.parametrize("masked", [False, True])
    def test_size_may_be_unknown(self, masked):
        def energy(x):
            return batch_energy(x, mask=x[:, 0] > 0 if masked else None)

        with fresh_programs():
            compiled = with_unknown_size(energy)
            for n in [0, 1, 16, 40]:
                x = features(n)
                expected = batch_value(x[x[:, 0] > 0] if masked else x)
                value = float(ops.convert_to_numpy(compiled(ops.convert_to_tensor(x))))
                assert value == pytest.approx(expected, rel=1e-6)

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are always known")
    @pytest.mark.parametrize("n", [30, 90])
    def test_panels_of_a_batch_of_unknown_size(self, n):
        import tensorflow as tf

        with mock.patch.multiple(_pair_sums, _CPU_MATRIX=35, _CPU_PANEL=16), fresh_programs():

            @tf.function(input_signature=[tf.TensorSpec((None, DIMENSION))])
            def unknown(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    value = batch_energy(x)
                return value, tape.gradient(value, x)

            value, gradient = unknown(features(n))
        expected, expected_gradient = batch_gradient(features(n))
        assert float(value) == pytest.approx(expected, rel=1e-6)
        scale = np.max(np.abs(expected_gradient))
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5 * scale)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"features": np.ones((4, 3), "int32")}, TypeError, "must be floating point"),
            ({"features": np.ones(4, "float32")}, ValueError, "must have the shape"),
            ({"features": np.ones((4, 0), "float32")}, ValueError, "must have the shape"),
            ({"labels": np.eye(4)}, ValueError, "`labels` must hold one value for each point"),
            ({"labels": np.ones(3)}, ValueError, "`labels` must hold one value for each point"),
            ({"mask": np.ones((4, 3), bool)}, ValueError, "`mask` must hold one value"),
            ({"s": -1.0}, ValueError, "argument `s`"),
            ({"distance": "cosine"}, ValueError, "argument `distance`"),
            ({"half_space": 1}, TypeError, "argument `half_space`"),
            ({"distance": "gaussian", "t": 16.0}, ValueError, "`t` must be at most 15"),
            ({"distance": "gaussian", "s": 2.0}, ValueError, "`s` does not apply"),
        ],
    )
    def test_error_names_the_argument(self, arguments, error, message):
        with pytest.raises(error, match=message):
            batch_energy(**{"features": np.ones((4, 3), "float32"), **arguments})
