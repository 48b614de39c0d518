"""The trainer of JAX: the numbers of `fit`, several seeds at once, callbacks, whole runs."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("this trainer needs JAX", allow_module_level=True)

import jax.numpy as jnp

from keras_mhe import MHE, CoMHE
from keras_mhe.regularizers import RandomProjection

scan = pytest.importorskip("workloads.scan", reason="only a checkout has experiments")
from experiments import cnn9, variants  # noqa: E402
from workloads import augmentation  # noqa: E402

STEPS, COUNT = 20, 256
quick = ("half-space MHE s=2", "fixed RP-CoMHE")
names = [name for name in variants.VARIANTS if not name.startswith("RP-CoMHE")]


def network(hidden, output, width, jit_compile, classes):
    """Two convolutions and class vectors, in place of the eleven kernels of CNN-9."""
    decay = keras.regularizers.L2(2.5e-4)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(width, 3, kernel_regularizer=hidden or decay),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(width, 3, strides=2, kernel_regularizer=hidden or decay),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_regularizer=output or decay),
        ]
    )


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, COUNT)
    x = rng.standard_normal((COUNT, 8, 8, 3)) + labels[:, None, None, None] / 5
    return x.astype("float32"), labels.astype("int32")


@pytest.fixture(autouse=True)
def fixed_projection(monkeypatch):
    # New random projections depend on the last bits of a kernel, which differ between programs.
    comhe = CoMHE(1.0, projection=RandomProjection(resample=False), bounded=False)
    pair = (comhe, MHE(10.0, bounded=False))
    monkeypatch.setitem(variants.VARIANTS, "fixed RP-CoMHE", lambda: pair)


def model_of(variant, seed=0):
    keras.utils.set_random_seed(seed)
    return cnn9.build_model(network, variant, 8, 10, 0.01)


def losses_of_fit(model, images, epochs):
    """Returns the mean loss of each epoch."""
    batches = augmentation.AugmentedImages(*images, steps=STEPS // epochs, seed=0)
    return model.fit(batches, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def on_device(images):
    x, labels = images
    return jnp.array(augmentation.padded(x)), jnp.array(labels)


def draws_of(seed):
    # The first step of `fit` with one step per epoch has the number one.
    return augmentation.draw(seed, 1, STEPS, COUNT)


@pytest.mark.parametrize(
    "variant",
    [
        *quick,
        *(pytest.param(name, marks=pytest.mark.slow) for name in names if name not in quick),
    ],
)
def test_losses_and_weights_are_those_of_fit_with_the_same_batches(variant, images):
    reference, model = model_of(variant), model_of(variant)
    expected = losses_of_fit(reference, images, STEPS)
    state, losses = scan.training_program(model)(
        scan.state_of(model), *on_device(images), draws_of(0)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert abs(expected[-1] - expected[0]) > 0.05
    scan.assign(model, state)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        # Scalars are fingerprints of the bits of kernels, whose last bits differ.
        if ours.ndim:
            np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert int(model.optimizer.iterations.value) == STEPS


@pytest.mark.slow
def test_several_seeds_at_once_are_the_seeds_one_after_the_other(images):
    x, labels = on_device(images)
    models = [model_of("half-space MHE s=2", seed) for seed in (0, 1)]
    single = scan.training_program(models[0])
    expected = [
        single(scan.state_of(model), x, labels, draws_of(seed))[1]
        for seed, model in enumerate(models)
    ]
    states = scan.stack([scan.state_of(model) for model in models])
    draws = scan.stack([draws_of(seed) for seed in (0, 1)])
    states, losses = scan.training_program(models[0], several=True)(states, x, labels, draws)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for model, state in zip(models, scan.unstack(states, 2), strict=True):
        scan.assign(model, state)
    assert not np.array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


def test_epochs_are_those_of_fit_and_callbacks_see_their_weights(images):
    class Weights(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.first, self.last = [], []

        def on_epoch_begin(self, epoch, logs=None):
            self.first.append(self.model.get_weights()[0])

        def on_epoch_end(self, epoch, logs=None):
            self.last.append(self.model.get_weights()[0])

    variant = "half-space MHE s=2"
    model, seen, chosen = model_of(variant), Weights(), np.arange(COUNT)
    start = model.get_weights()[0]
    losses = scan.fit(model, *on_device(images), chosen, 4, STEPS // 4, 0, [seen])
    expected = losses_of_fit(model_of(variant), images, 4)
    np.testing.assert_allclose(losses.reshape(4, -1).mean(axis=1), expected, rtol=1e-4)
    np.testing.assert_array_equal(seen.first[0], start)
    for end, begin in zip(seen.last[:-1], seen.first[1:], strict=True):
        np.testing.assert_array_equal(end, begin)
        assert not np.array_equal(end, start)
    np.testing.assert_array_equal(seen.last[-1], model.get_weights()[0])


@pytest.mark.slow
def test_equal_seeds_give_equal_runs():
    config = {name: values[0] for name, values in cnn9.experiment.grid.items()}
    config |= {"width": 2, "images": 256, "steps": 20, "trainer": "scan", "seed": 0}
    config |= {"variant": "half-space MHE s=2", "precision": "bfloat16"}
    outcomes = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        outcomes.append(cnn9.run(config, "digits"))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0].details["layer 1 position"]) == 21
