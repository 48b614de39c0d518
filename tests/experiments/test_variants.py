"""Variants: pairs of regularizers, and SRIP against a decomposition of NumPy."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

variants = pytest.importorskip("experiments.variants", reason="only a checkout has experiments")


@pytest.mark.parametrize("variant", variants.VARIANTS)
def test_every_variant_is_a_pair_of_regularizers(variant):
    kernel = np.random.default_rng(0).standard_normal((3, 3, 8, 4)).astype("float32")
    pair = variants.VARIANTS[variant]()
    assert [regularizer is not None for regularizer in pair] == [
        variant != "baseline" and "(classes)" not in variant,
        variant != "baseline" and "(hidden)" not in variant,
    ]
    for regularizer in filter(None, pair):
        if not getattr(regularizer, "stateful", False):
            assert np.isfinite(energy := float(regularizer(kernel)))
            assert energy != 0


def test_srip_is_the_largest_singular_value_if_it_dominates_and_never_above_it():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 8, 16)).astype("float32") / 9
    for copies, least in ((1, 0.5), (6, 0.9)):
        kernel[..., :copies] = kernel[..., :1]
        matrix = kernel.reshape(-1, 16).astype("float64")
        largest = np.linalg.norm(matrix.T @ matrix - np.eye(16), 2)
        value = float(variants.SRIP(1.0)(kernel))
        assert least * largest < value < 1.000001 * largest


def test_srip_of_orthonormal_neurons_is_zero():
    neurons = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 8)))[0]
    kernel = keras.ops.convert_to_tensor(neurons.astype("float32"))
    assert float(variants.SRIP(1.0)(kernel)) == pytest.approx(0, abs=1e-5)
