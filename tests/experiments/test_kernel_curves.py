"""Curves of kernels: final values, and kernels without numbers."""

import numpy as np
import pytest

pytestmark = pytest.mark.once

kernel_curves = pytest.importorskip(
    "experiments.kernel_curves", reason="only a checkout has experiments"
)


def test_kernels_that_are_not_finite_give_nan_metrics():
    curves = {"layer 1 position": [1.0, None], "layer 1 smallest": [50.0, None]}
    assert np.isnan(list(kernel_curves.final_metrics(curves).values())).all()
    curves |= {"layer 2 position": [1.0, 3.0], "layer 2 smallest": [50.0, 40.0]}
    assert kernel_curves.final_metrics(curves) == {"mean position": 3, "smallest angle °": 40}
