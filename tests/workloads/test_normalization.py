"""Fused batch normalization: the same as Keras's layer, in training and afterwards."""

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow only"),
]

normalization = pytest.importorskip(
    "workloads.normalization", reason="only a checkout has experiments"
)
precision = pytest.importorskip("workloads.precision", reason="only a checkout has experiments")

IMAGES = np.random.default_rng(0).normal(1, 3, (24, 6, 6, 3)).astype("float32")
LABELS = np.arange(24) % 4


def trained(layer):
    """Returns a network after a few steps with batches of 16 and 8 images."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(5, 3), layer, keras.layers.ReLU(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers, keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    history = model.fit(IMAGES, LABELS, batch_size=16, epochs=3, verbose=0)
    return [*model.get_weights(), model.predict(IMAGES, verbose=0), history.history["loss"]]


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
def test_training_gives_the_weights_the_statistics_and_the_predictions_of_keras(policy, tolerance):
    with precision.dtype_policy(policy):
        fused = trained(normalization.FusedBatchNormalization())
        plain = trained(keras.layers.BatchNormalization())
    for ours, theirs in zip(fused, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance)


@pytest.mark.parametrize(("policy", "fused"), [("float32", False), ("mixed_bfloat16", True)])
def test_only_layers_in_bfloat16_are_fused(policy, fused):
    with precision.dtype_policy(policy):
        layer = normalization.batch_normalization()
    assert isinstance(layer, normalization.FusedBatchNormalization) == fused
