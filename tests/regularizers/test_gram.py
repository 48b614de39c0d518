"""MGD: its definition, and its jitter for crowded neurons."""

import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, normals
from uniformity import (
    assert_matches_definition,
    gram_determinant,
    on_spaces_and_groups,
    points,
    squared_distances,
)

from keras_mhe import MGD


class TestGramDeterminant:
    @on_spaces_and_groups
    def test_value_and_gradient_match_the_definition(self, half_space, groups, float64):
        regularizer = MGD(1.0, half_space=half_space, groups=groups)
        assert_matches_definition(
            regularizer, lambda k: gram_determinant(k, half_space), normals(5, 8, dtype="float64")
        )

    @pytest.mark.parametrize("half_space", SPACES)
    def test_float32_is_accurate_for_eigenvalues_above_a_ten_thousandth(self, half_space):
        kernel = normals(24, 60)
        x = points(kernel.astype("float64"), half_space)
        assert np.linalg.eigvalsh(np.exp(-squared_distances(x, x)))[0] > 1e-4
        expected = gram_determinant(kernel.astype("float64"), half_space)
        value, _ = value_and_gradient(MGD(1.0, half_space=half_space), kernel)
        assert value == pytest.approx(expected, rel=1e-3)

    def test_crowded_neurons_raise_the_jitter_by_factors_of_ten(self):
        kernel = normals(3, 40)
        value, gradient = value_and_gradient(MGD(1.0), kernel)
        assert np.all(np.isfinite(gradient))
        raised = np.array(
            [gram_determinant(kernel.astype("float64"), False, 10.0**-k) for k in (5, 4, 3)]
        )
        assert np.min(np.abs(value / raised - 1)) < 0.01

    @pytest.mark.parametrize("half_space", SPACES)
    def test_degenerate_kernels_give_finite_values_and_gradients(self, half_space):
        shape = (3, 256) if half_space else (3, 40)
        for kernel in (normals(*shape), np.ones(shape), np.zeros(shape), normals(1, 40)):
            regularizer = MGD(1.0, half_space=half_space)
            value, gradient = value_and_gradient(
                lambda k, r=regularizer: r.energy(k, {}), kernel.astype("float32")
            )
            assert np.isfinite(value)
            assert np.all(np.isfinite(gradient))
