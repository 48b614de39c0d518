"""Pruning: which neurons stay, and what a network without the others computes."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

pruning = pytest.importorskip("experiments.pruning", reason="only a checkout has experiments")


@pytest.fixture(scope="module")
def features():
    keras.utils.set_random_seed(0)
    features, _ = pruning.network("baseline")
    for layer in features.layers[1:]:
        layer.bias.assign(np.random.default_rng(0).normal(size=layer.units))
    return features


@pytest.fixture(scope="module")
def weights(features):
    return pruning.dense_weights(features)


@pytest.fixture(scope="module")
def images():
    return pruning.split_digits(3)


def test_training_and_test_images_are_all_digits_and_have_none_in_common(images):
    assert len(images.y) == 1000
    together = np.concatenate([images.x, images.x_test])
    assert len({x.tobytes() for x in together}) == len(together) == 1797


def test_a_network_that_keeps_all_neurons_computes_the_features(features, weights, images):
    everything = [np.arange(len(bias)) for _, bias in weights[:-1]]
    ours = pruning.pruned_features(weights, images.x[:20], everything)
    np.testing.assert_allclose(ours, features(images.x[:20]), rtol=1e-4, atol=1e-4)


def test_a_removed_neuron_is_one_whose_weights_are_zero(features, weights, images):
    kept = pruning.largest_neurons(weights, 1 / 4)
    assert [len(indices) for indices in kept] == [32, 32]
    copy = keras.models.clone_model(features)
    copy.set_weights(features.get_weights())
    for layer, indices in zip(copy.layers[1:-1], kept, strict=True):
        mask = np.isin(np.arange(layer.units), indices)
        layer.kernel.assign(layer.kernel * mask)
        layer.bias.assign(layer.bias * mask)
    ours = pruning.pruned_features(weights, images.x[:20], kept)
    np.testing.assert_allclose(ours, copy(images.x[:20]), rtol=1e-4, atol=1e-4)


def test_the_size_of_a_neuron_does_not_depend_on_how_its_weights_share_a_scale(weights):
    scales = np.random.default_rng(1).uniform(0.1, 10, 128)
    (first, bias), (second, other_bias), last = weights
    moved = [(first * scales, bias * scales), (second / scales[:, None], other_bias), last]
    ours, theirs = (pruning.largest_neurons(each, 1 / 2)[0] for each in (moved, weights))
    assert set(ours) == set(theirs)


def test_neurons_with_short_outgoing_weights_are_removed(weights):
    (first, bias), (second, other_bias), last = weights
    short = np.where(np.arange(128) < 64, 1e-3, 1)[:, None]
    changed = [(first, bias), (second * short, other_bias), last]
    assert set(pruning.largest_neurons(changed, 1 / 2)[0]) == set(range(64, 128))


@pytest.mark.parametrize("variant", pruning.VARIANTS)
def test_variants_start_from_the_same_weights_and_keep_weight_decay(variant):
    networks = []
    for name in ("baseline", variant):
        keras.utils.set_random_seed(0)
        networks.append(pruning.network(name))
    (plain, plain_head), (features, head) = networks
    for ours, theirs in zip(features.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    added = pruning.VARIANTS[variant]
    kernels = [layer.kernel for layer in features.layers[1:]]
    expected = sum(map(float, plain.losses))
    if added is not None:
        terms = [float(added(kernel)) for kernel in kernels]
        assert all(terms)
        expected += sum(terms)
    assert sum(map(float, features.losses)) == pytest.approx(expected, rel=1e-5)
    assert float(head.kernel_regularizer(np.ones((1, 1)))) == pytest.approx(5e-4)
    assert plain_head.units == head.units == pruning.CLASSES
