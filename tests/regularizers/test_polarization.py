"""RMHP, the relaxed polarization; `test_poles.py` tests MHP."""

import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import normals
from uniformity import (
    assert_matches_definition,
)

from keras_mhe import RMHP


class TestRelaxedPolarization:
    @pytest.mark.parametrize("groups", [None, 2])
    def test_value_and_gradient_match_the_definition(self, groups, float64):
        kernel = normals(4, 8, dtype="float64")
        assert_matches_definition(
            RMHP(1.0, groups=groups), lambda k: np.linalg.norm(k.sum(axis=1)), kernel
        )

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
    def test_kernels_of_every_scale_have_exact_values_and_finite_gradients(self, scale):
        kernel = scale * normals(4, 8)
        value, gradient = value_and_gradient(RMHP(1.0), kernel)
        expected = np.linalg.norm(kernel.astype("float64").sum(axis=1))
        assert value == pytest.approx(expected, rel=1e-5)
        assert np.all(np.isfinite(gradient))

    def test_half_space_is_not_an_argument(self):
        with pytest.raises(TypeError, match="half_space"):
            RMHP(1.0, half_space=True)
