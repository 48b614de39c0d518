"""ResNet-32: layers and weights as published, and training with regularizers."""

import keras
import numpy as np
import pytest

import keras_mhe

pytestmark = pytest.mark.once

workload = pytest.importorskip("workloads.resnet32", reason="only a checkout has workloads")


def test_layers_and_weights_are_those_of_the_paper():
    """He et al. count 32 layers and 0.46 million weights, in table 6."""
    model = workload.resnet32(None, None, 16, "auto")
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    assert sum(isinstance(layer, kinds) for layer in model.layers) == 32
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert round(trained / 1e6, 2) == 0.46
    assert model.output_shape == (None, 10)


def test_a_shortcut_to_more_filters_takes_every_second_pixel_and_appends_zeros():
    """Without the convolutions of a block, its output is that of the shortcut."""
    model = workload.resnet32(None, None, 4, "auto")
    for weight in model.weights:
        if weight.path.endswith("gamma"):
            weight.assign(0 * weight)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.ReLU))
    next(w for w in model.weights if w.path.endswith("gamma")).assign(np.ones(4))
    last = next(x for x in model.layers if isinstance(x, keras.layers.GlobalAveragePooling2D))
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    before, after = keras.Model(model.input, [first.output, last.input])(images)
    before, after = map(keras.ops.convert_to_numpy, (before, after))
    np.testing.assert_allclose(after[..., 6:10], before[:, ::4, ::4], rtol=1e-6)
    assert not after[..., :6].any()
    assert not after[..., 10:].any()


@pytest.mark.slow
def test_it_trains_with_regularizers_of_hidden_kernels_and_class_vectors():
    keras.utils.set_random_seed(0)
    model = workload.resnet32(None, None, 2, "auto")
    table = keras_mhe.regularize(model, keras_mhe.HalfSpaceMHE(1.0), keras_mhe.MHE(10.0))
    roles = [row.role for row in table.rows if row.action == "regularized"]
    assert roles == ["hidden"] * 31 + ["output"]
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((8, 32, 32, 3)), rng.integers(0, 10, 8)
    before = model.get_weights()
    losses = [float(model.train_on_batch(images, labels)) for _ in range(2)]
    assert np.isfinite(losses).all()
    kernels = [w.ndim > 1 for w in before]
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(m for m, kernel in zip(moved, kernels, strict=True) if kernel)
