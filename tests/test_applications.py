"""Each network of keras.applications is regularized and trains a compiled step.

A few of them are regularized here, and one is trained on JAX; `python -m benchmarks --quick` trains
DenseNet121 on TensorFlow. With KERAS_MHE_APPLICATIONS=all all of them are regularized and trained,
in an hour or two.
"""

import inspect
import os

import keras
import numpy as np
import pytest
from helpers import energy_value

from keras_mhe import MHE, HalfSpaceMHE, regularize

pytestmark = pytest.mark.slow

REGULARIZED = ["ConvNeXtTiny", "MobileNetV3Small", "ResNet50", "VGG16", "Xception"]
TRAINED = []
if keras.backend.backend() == "jax":
    # `regularize` does not depend on the backend, so one network is enough here.
    REGULARIZED = TRAINED = ["MobileNetV3Small"]
if os.environ.get("KERAS_MHE_APPLICATIONS") == "all":
    REGULARIZED = [
        name for name, make in vars(keras.applications).items() if inspect.isfunction(make)
    ]
    TRAINED = REGULARIZED


def smallest_network(name):
    """The network for the smallest image size that it accepts, and that size."""
    for size in (32, 48, 71, 75, 96, 224, 331):
        keras.backend.clear_session()
        try:
            make = getattr(keras.applications, name)
            return make(weights=None, input_shape=(size, size, 3), classes=10), size
        except ValueError as error:
            reason = error
    raise reason


@pytest.mark.parametrize("name", REGULARIZED)
def test_network_is_regularized_and_trains(name):
    model, size = smallest_network(name)
    table = regularize(model)
    outputs = [row for row in table.rows if row.role == "output"]
    assert [row.neurons for row in outputs] == [10]
    # Only kernels of single neurons and depthwise filters are skipped.
    skipped = {row.note for row in table.rows if row.action == "skipped"}
    assert all("one neuron" in note or "channels do not compete" in note for note in skipped)
    assert all(row.saved for row in table.rows if row.action != "skipped")
    regularized = [weight for weight in model.weights if weight.regularizer is not None]
    assert len(regularized) == sum(row.action != "skipped" for row in table.rows)

    if name not in TRAINED:
        return
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).random((2, size, size, 3), "float32")
    loss = float(model.train_on_batch(images, np.array([0, 1])))
    # The loss includes ten times the energy of the class vectors.
    assert 5 < loss < np.inf
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.once
def test_losses_of_resnet50_are_the_sum_of_its_energies():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    # For such small images, the default energies draw groups of neurons.
    regularize(model, HalfSpaceMHE(1.0), MHE(10.0))
    *hidden, output = [layer for layer in model.layers if hasattr(layer, "kernel")]
    expected = 10 * energy_value(output.kernel)
    expected += sum(energy_value(layer.kernel, half_space=True) for layer in hidden)
    assert len(hidden) == 53
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.once
def test_default_energies_of_resnet50_are_exact_for_images_of_its_own_size():
    """They take a tenth of the operations of a step."""
    table = regularize(keras.applications.ResNet50(weights=None))
    assert [row.regularizer.sample for row in table.rows if row.regularizer] == [None] * 54
