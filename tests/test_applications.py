"""Every network of keras.applications is regularized whole and trains a compiled step.

A few of them are regularized here, and one is trained on JAX; `python -m benchmarks --quick` trains
ResNet50 on TensorFlow. With KERAS_MHE_APPLICATIONS=all all of them are regularized and trained, in
an hour or two.
"""

import inspect
import os

import keras
import numpy as np
import pytest
from probes import number

from keras_mhe import regularize

pytestmark = pytest.mark.slow

CHOSEN = ["ConvNeXtTiny", "MobileNetV3Small", "ResNet50", "VGG16", "Xception"]
TRAINED = []
if keras.backend.backend() == "jax":
    # Layers are regularized alike on every backend.
    CHOSEN = TRAINED = ["MobileNetV3Small"]
if os.environ.get("KERAS_MHE_APPLICATIONS") == "all":
    CHOSEN = [name for name, make in vars(keras.applications).items() if inspect.isfunction(make)]
    TRAINED = CHOSEN


def smallest(name):
    """The network for the smallest images that it takes, and their size."""
    for size in (32, 48, 71, 75, 96, 224, 331):
        keras.backend.clear_session()
        try:
            make = getattr(keras.applications, name)
            return make(weights=None, input_shape=(size, size, 3), classes=10), size
        except ValueError as error:
            reason = error
    raise reason


@pytest.mark.parametrize("name", CHOSEN)
def test_is_regularized_whole_and_trains(name):
    model, size = smallest(name)
    table = regularize(model)
    outputs = [row for row in table.rows if row.role == "output"]
    assert [row.neurons for row in outputs] == [10]
    # Only filters of single channels have nobody to be pushed from.
    skipped = {row.note for row in table.rows if row.role == "skipped"}
    assert all("one neuron" in note or "channels do not compete" in note for note in skipped)
    assert all(row.saved for row in table.rows if row.role != "skipped")
    regularized = [weight for weight in model.weights if weight.regularizer is not None]
    assert len(regularized) == sum(row.role != "skipped" for row in table.rows)

    if name not in TRAINED:
        return
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).random((2, size, size, 3), "float32")
    loss = float(model.train_on_batch(images, np.array([0, 1])))
    # More than the cross entropy of a guess: ten times the energy of the class vectors.
    assert 5 < loss < np.inf
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.once
def test_resnet50_adds_the_sum_of_its_energies():
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    regularize(model)
    *hidden, output = [layer for layer in model.layers if hasattr(layer, "kernel")]
    expected = 10 * number(output.kernel)
    expected += sum(number(layer.kernel, half_space=True) for layer in hidden)
    assert len(hidden) == 53
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)
