"""MHS: its definition, its measures, its accuracy in float32, and large kernels."""

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, normals, on_compiled_and_other_steps
from uniformity import (
    assert_matches_definition,
    separation,
)

from keras_mhe import MHS


class TestSeparation:
    @pytest.mark.parametrize(
        ("half_space", "groups", "all_neurons"),
        [(False, None, False), (True, 2, False), (False, 2, True), (True, None, True)],
    )
    def test_value_and_gradient_match_the_definition(
        self, half_space, groups, all_neurons, float64
    ):
        regularizer = MHS(1.0, half_space=half_space, all_neurons=all_neurons, groups=groups)
        kernel = normals(4, 8, dtype="float64")
        assert_matches_definition(
            regularizer, lambda k: separation(k, half_space, all_neurons), kernel
        )

    def test_small_distances_are_accurate_in_float32(self):
        kernel = normals(5, 4)
        kernel[:, 1] = kernel[:, 0] + 1e-3 * normals(5, seed=1)
        expected = separation(kernel.astype("float64"), False)
        assert value_and_gradient(MHS(1.0), kernel)[0] == pytest.approx(expected, rel=1e-3)

    def test_only_the_closest_pair_of_a_large_kernel_gets_a_gradient(self):
        kernel = normals(8, 3000)
        kernel[:, 2900] = -kernel[:, 17] + 1e-2 * normals(8, seed=1)
        value, gradient = value_and_gradient(MHS(1.0, half_space=True), kernel)
        expected = separation(kernel[:, [17, 2900]].astype("float64"), True)
        assert value == pytest.approx(expected, rel=1e-4)
        assert set(np.flatnonzero(np.any(gradient, axis=0))) == {17, 2900}

    @pytest.mark.parametrize("all_neurons", [False, True])
    def test_ties_and_equal_neurons_give_finite_values_and_gradients(self, all_neurons):
        for kernel in (np.ones((3, 6)), np.zeros((3, 6)), np.eye(3, 6), normals(3, 1)):
            for half_space in SPACES:
                regularizer = MHS(1.0, half_space=half_space, all_neurons=all_neurons)
                value, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
                assert np.isfinite(value)
                assert np.all(np.isfinite(gradient))

    def test_single_neuron_and_zero_neurons_have_known_values(self):
        assert value_and_gradient(MHS(1.0), normals(3, 1))[0] == 0
        assert value_and_gradient(MHS(1.0, half_space=True), normals(3, 1))[0] == -4
        assert value_and_gradient(MHS(1.0), np.zeros((3, 4), "float32"))[0] == -2


MEASURES = ["squared", "log", "angle"]


class TestMeasures:
    """The measure of distances to nearest neighbors: squared distance, logarithm or angle."""

    @pytest.mark.parametrize("measure", MEASURES)
    @pytest.mark.parametrize(
        ("half_space", "groups", "all_neurons"),
        [(False, 2, None), (True, None, True), (False, None, False), (True, 2, False)],
    )
    def test_value_and_gradient_match_the_definition(
        self, half_space, groups, all_neurons, measure, float64
    ):
        kernel = normals(3, 8, dtype="float64")
        kernel[:, 1] = kernel[:, 0] + 0.1 * normals(3, seed=1)  # below epsilon
        n = 8 // (groups or 1)
        epsilon = oracle.auto_epsilon(2 * n if half_space else n, 3)
        options = {"half_space": half_space, "groups": groups, "measure": measure}
        assert_matches_definition(
            MHS(1.0, all_neurons=all_neurons, **options),
            lambda k: separation(k, half_space, all_neurons is not False, measure, epsilon),
            kernel,
        )

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("measure", MEASURES)
    def test_float32_keeps_the_digits_of_small_distances(self, measure, half_space, float64):
        kernel = normals(5, 6)
        kernel[:, 1] = kernel[:, 0] + 1e-3 * normals(5, seed=1)
        kernel[:, 3] = -kernel[:, 2] + 1e-3 * normals(5, seed=2)
        regularizer = MHS(1.0, half_space=half_space, measure=measure, bounded=False)
        value, gradient = value_and_gradient(regularizer, kernel)
        expected_value, expected = value_and_gradient(regularizer, kernel.astype("float64"))
        assert value == pytest.approx(expected_value, rel=1e-5)
        # The rounded directions of two neurons at a distance of 1e-3 have 4 digits.
        np.testing.assert_allclose(gradient, expected, atol=3e-4 * np.abs(expected).max())

    @pytest.mark.parametrize("gap", [1e-2, 1e-3, 0.0])
    def test_angles_near_180_degrees_are_exact(self, gap, float64):
        kernel = np.array([[1.0, -np.cos(gap)], [0.0, np.sin(gap)]])
        value, gradient = value_and_gradient(
            MHS(1.0, measure="angle", bounded=False), kernel.astype("float32")
        )
        assert value == pytest.approx(gap - np.pi, rel=1e-6)
        # The length of the gradient is 1, but less within 0.8 degrees of opposite neurons.
        length = min(1.0, 2 * np.sin(gap / 2) / 0.014)
        np.testing.assert_allclose(np.linalg.norm(gradient, axis=0), length, atol=1e-4)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("all_neurons", [False, True])
    @pytest.mark.parametrize("measure", MEASURES)
    def test_degenerate_kernels_give_finite_values_and_gradients(
        self, measure, all_neurons, half_space
    ):
        opposite = np.outer(normals(3), [1, -1, 1, -1, 1, -1])
        one_zero = normals(3, 6) * [1, 0, 1, 1, 1, 1]
        equal, zeros, axes = np.ones((3, 6)), np.zeros((3, 6)), np.eye(3, 6)
        regularizer = MHS(1.0, half_space=half_space, all_neurons=all_neurons, measure=measure)
        for kernel in (opposite, one_zero, equal, zeros, axes, normals(3, 1)):
            value, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
            assert np.isfinite(value)
            assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("measure", MEASURES)
    def test_close_neurons_repel_each_other(self, measure):
        kernel = np.array([[1.0, 1.0], [1e-3, -1e-3]], "float32")
        _, gradient = value_and_gradient(MHS(1.0, measure=measure), kernel)
        assert gradient[1, 0] < 0 < gradient[1, 1]

    @pytest.mark.parametrize(
        ("measure", "right_angle", "opposite"),
        [("squared", 2, 4), ("log", np.log(2) / 2, np.log(2)), ("angle", np.pi / 2, np.pi)],
    )
    def test_zero_and_single_neurons_have_known_values(self, measure, right_angle, opposite):
        zeros, single = np.zeros((3, 4), "float32"), normals(3, 1)
        full, half = (MHS(1.0, measure=measure, half_space=space) for space in SPACES)
        assert value_and_gradient(full, zeros)[0] == pytest.approx(-right_angle)
        assert value_and_gradient(full, single)[0] == 0
        assert value_and_gradient(half, single)[0] == pytest.approx(-opposite)

    def test_a_measure_means_all_neurons_unless_stated_otherwise(self):
        assert not MHS().all_neurons
        assert MHS(measure="log").all_neurons
        assert not MHS(measure="log", all_neurons=False).all_neurons
        kernel = normals(4, 8)
        closest = MHS(1.0, measure="squared", all_neurons=False)
        assert value_and_gradient(closest, kernel)[0] == value_and_gradient(MHS(1.0), kernel)[0]

    def test_configs_keep_a_measure_and_are_those_of_earlier_versions_without(self):
        for regularizer in (MHS(), MHS(all_neurons=True), MHS(measure="angle", all_neurons=False)):
            config = regularizer.get_config()
            assert MHS.from_config(config).get_config() == config
        for all_neurons in SPACES:
            config = MHS(all_neurons=all_neurons).get_config()
            assert config["all_neurons"] is all_neurons
            assert "measure" not in config

    @pytest.mark.parametrize("measure", ["distance", "", 2, True])
    def test_unknown_measures_raise_an_error(self, measure):
        with pytest.raises(ValueError, match=r"`measure`.*Received: measure="):
            MHS(measure=measure)

    @on_compiled_and_other_steps
    @pytest.mark.parametrize("measure", ["log", pytest.param("angle", marks=pytest.mark.slow)])
    def test_training_spreads_neurons(self, measure, jit_compile):
        dense = keras.layers.Dense(
            8,
            kernel_regularizer=MHS(1.0, measure=measure),
            kernel_initializer=keras.initializers.RandomNormal(1.0, 0.3, seed=0),
        )
        model = keras.Sequential([keras.Input((4,)), dense])
        model.compile(
            keras.optimizers.SGD(1.0), lambda y, p: 0.0 * p[:, 0], jit_compile=jit_compile
        )
        x, y = np.ones((8, 4), "float32"), np.zeros((8, 1), "float32")
        losses = model.fit(x, y, batch_size=8, epochs=30, verbose=0).history["loss"]
        assert np.all(np.isfinite(losses))
        assert losses[-1] < losses[0] - 0.1
