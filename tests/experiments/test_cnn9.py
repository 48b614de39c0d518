"""CNN-9: equal initial weights, weight decay, training sets, precision, unusable configs."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

cnn9 = pytest.importorskip("experiments.cnn9", reason="only a checkout has experiments")


def config(**parts):
    defaults = {name: values[0] for name, values in cnn9.experiment.grid.items()}
    return defaults | {"variant": "baseline", "seed": 0, "steps": 20, "images": 512} | parts


@pytest.mark.parametrize(
    "variant",
    [
        "baseline",
        *[
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("orthogonal", "SRIP", "RP-CoMHE", "MHP")
        ],
    ],
)
def test_every_variant_has_the_same_initial_weights_and_keeps_weight_decay(variant):
    def decay(model):
        norms = [np.sum(np.square(w)) for w in model.get_weights() if w.ndim == 4]
        return 2.5e-4 * sum(norms)

    keras.utils.set_random_seed(0)
    model = cnn9.build_model(cnn9.cnn9, variant, 2, 10, 0.1)
    keras.utils.set_random_seed(0)
    plain = cnn9.build_model(cnn9.cnn9, "baseline", 2, 10, 0.1)
    kernels = [[w for w in each.get_weights() if w.ndim == 4] for each in (model, plain)]
    for ours, theirs in zip(*kernels, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    energies = float(sum(map(float, model.losses))) - decay(plain)
    if variant == "baseline":
        assert energies == pytest.approx(0, abs=1e-4)
    else:
        assert abs(energies) > 1e-3


def test_the_seed_selects_the_training_images():
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    chosen = cnn9.training_images(config(images=500), labels)
    assert len(set(chosen)) == 500
    assert not np.array_equal(chosen, cnn9.training_images(config(images=500, seed=1), labels))


@pytest.mark.parametrize(
    ("imbalance", "fractions"),
    [("single", [0.1] + 9 * [1.0]), ("multiple", [k / 10 for k in range(1, 11)])],
)
def test_imbalance_cuts_classes_and_keeps_the_order_of_the_rest(imbalance, fractions):
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    all_images = cnn9.training_images(config(images=800), labels)
    cut = cnn9.training_images(config(images=800, imbalance=imbalance), labels)
    before, after = (np.bincount(labels[chosen]) for chosen in (all_images, cut))
    np.testing.assert_array_equal(after, np.round(np.multiply(before, fractions)))
    order = {image: position for position, image in enumerate(all_images)}
    assert np.all(np.diff([order[image] for image in cut]) > 0)


def test_bfloat16_layers_keep_kernels_and_energies_in_float32():
    with cnn9.dtype_policy(cnn9.PRECISIONS["bfloat16"]):
        model = cnn9.build_model(cnn9.cnn9, "half-space MHE s=2", 2, 10, 0.1)
    assert keras.config.dtype_policy().name == "float32"
    assert model.layers[0].compute_dtype == "bfloat16"
    kernel = model.layers[0].kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"
    model(np.zeros((1, 32, 32, 3), "float32"))
    exact = float(model.layers[0].kernel_regularizer(kernel))
    assert float(model.losses[0]) == pytest.approx(exact, rel=1e-6)
    assert all(keras.backend.standardize_dtype(loss.dtype) == "float32" for loss in model.losses)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"steps": 30}, r"multiple of 20\. Received: 30"),
        ({"images": 2000}, r"from 128 to 1297, .* Received: 2000"),
        ({"images": 100}, r"from 128 to 1297, .* Received: 100"),
        ({"imbalance": "all"}, r"imbalance is one of single, multiple\. Received: all"),
        ({"trainer": "loop"}, r"trainer is one of fit, scan\. Received: loop"),
        ({"precision": "half"}, r"precision is one of float32, bfloat16\. Received: half"),
        ({"loss": "hinge"}, r"loss is one of cross-entropy, bounded\. Received: hinge"),
    ],
)
def test_configs_that_cannot_be_used_raise(parts, message):
    with pytest.raises(ValueError, match=message):
        cnn9.run(config(**parts), "digits")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the trainer works on JAX")
def test_the_scan_trainer_needs_jax():
    with pytest.raises(ValueError, match="needs KERAS_BACKEND=jax"):
        cnn9.run(config(trainer="scan"), "digits")


@pytest.mark.parametrize(
    ("variant", "points"), [("baseline", [1.0, 0.5, 0.2]), ("SRIP", [1.0, 0.2])]
)
def test_runs_that_no_plot_shows_keep_the_ends_of_curves(variant, points):
    curves = {"layer 1 position": [1.0, 0.5, 0.2]}
    assert cnn9.kept(curves, variant) == {"layer 1 position": points}
