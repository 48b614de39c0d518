"""`unregularize` removes energies and wrappers, and keeps everything else."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers
from small_models import dense_model

from keras_mhe import (
    MHE,
    MHP,
    HypersphericalRegularization,
    MinimumEnergy,
    Uniformity,
    regularize,
    unregularize,
)
from keras_mhe.regularizers import RegularizerSum


def test_unregularize_keeps_a_sum_without_energies():
    both = keras.regularizers.L1(0.01), keras.regularizers.L2(0.02)
    regularizer = RegularizerSum(both)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_regularizer=regularizer)])
    assert unregularize(model).rows == []
    assert model.layers[0].kernel_regularizer is regularizer


def test_unregularize_leaves_plain_keras_regularizers():
    norms = keras.regularizers.L1(0.01), keras.regularizers.L2(0.02)
    model = dense_model(6, 4)
    regularize(model, MHE(1.0) + norms[0], MHE(1.0) + norms[0] + norms[1])
    unregularize(model)
    assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L1)
    both = model.layers[1].kernel_regularizer
    assert type(both) is keras.regularizers.L1L2
    assert (both.l1, both.l2) == pytest.approx((0.01, 0.02))


@pytest.mark.slow
@pytest.mark.once
def test_unregularized_model_loads_without_keras_mhe(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 8)),
            HypersphericalRegularization(layers.Dense(6, kernel_regularizer="l2"), MHP()),
            layers.LSTM(5),
            layers.Dense(3),
        ]
    )
    regularize(model)
    bare = unregularize(model).model
    bare.save(tmp_path / "model.keras")
    inputs = normals(2, 6, 8)
    np.save(tmp_path / "inputs.npy", inputs)
    program = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('outputs.npy', model.predict(np.load('inputs.npy'), verbose=0))\n"
        "assert 'keras_mhe' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    outputs = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), outputs, rtol=1e-5)


def test_title_names_what_still_needs_the_package():
    rest = keras.regularizers.L2(0.01) + (MHE() + keras.regularizers.OrthogonalRegularizer())
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, kernel_regularizer=rest, name="sum"),
            layers.Dense(5, kernel_initializer=MinimumEnergy(), name="initialized"),
            Uniformity(MHE(), name="points"),
            HypersphericalRegularization(layers.Dense(4), MHE()),
        ]
    )
    reason = "A saved model loads only with keras_mhe, because of"
    assert unregularize(model).title == (
        f"Kernels whose energy was removed: 2. {reason} RegularizerSum: sum. "
        f"{reason} MinimumEnergy: initialized. {reason} Uniformity: points."
    )


def test_unregularize_skips_wrappers_inside_other_wrappers():
    inner = HypersphericalRegularization(layers.Dense(5), MHE())
    model = keras.Sequential([keras.Input((4, 8)), layers.TimeDistributed(inner)])
    (row,) = unregularize(model).rows
    assert row.action == "skipped"
    assert len(model.losses) == 1
