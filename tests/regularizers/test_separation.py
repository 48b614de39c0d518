"""MHS: its definition, its accuracy in float32, and large kernels."""

import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, normals
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
