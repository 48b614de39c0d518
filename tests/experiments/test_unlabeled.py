"""Embeddings without labels: views, losses, and accuracy from few labels."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

unlabeled = pytest.importorskip("experiments.unlabeled", reason="only a checkout has experiments")


def test_views_of_all_images_follow_each_other():
    shades = np.array([0.2, 0.5, 1.0])
    images = shades[:, None, None, None] * np.ones((3, 8, 8, 1))
    views = unlabeled.random_views(images, 4, np.random.default_rng(0))
    assert views.shape == (12, 8, 8)
    np.testing.assert_allclose(views[:, 4, 4], np.tile(shades, 4))


def test_each_view_has_a_transformation_of_its_own():
    digit = np.random.default_rng(0).random((8, 8, 1))
    views = unlabeled.random_views(np.stack([digit, digit]), 3, np.random.default_rng(0))
    assert len({view.tobytes() for view in views}) == 6


def pairs(seed):
    points = np.random.default_rng(seed).normal(size=(5, 2, 3))
    return (points / np.linalg.norm(points, axis=-1, keepdims=True)).astype("float32")


def test_the_contrastive_loss_is_the_cross_entropy_of_the_second_view():
    u, v = np.moveaxis(pairs(0).astype("float64"), 1, 0)
    scores = np.exp(u @ v.T / 0.2)
    expected = -np.log(np.diag(scores) / scores.sum(axis=1))
    np.testing.assert_allclose(unlabeled.contrast(None, pairs(0)), expected, rtol=1e-4)


def test_the_alignment_is_the_squared_distance_of_the_views():
    u, v = np.moveaxis(pairs(1), 1, 0)
    expected = np.linalg.norm(u - v, axis=1) ** 2
    np.testing.assert_allclose(unlabeled.alignment(None, pairs(1)), expected, rtol=1e-5)


def test_few_labels_are_equally_many_of_each_class():
    labels = np.repeat(np.arange(10), np.arange(6, 16))
    chosen = unlabeled.few_labels(labels, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[chosen]), unlabeled.LABELS)
    assert len(set(chosen)) == len(chosen)


def test_nearest_neighbors_of_separate_classes_are_right_and_of_equal_points_are_not():
    labels = np.arange(100) % 10
    images = unlabeled.Images(None, labels, None, labels)
    rng = np.random.default_rng(0)
    points = np.eye(10)[labels] + 0.01 * rng.normal(size=(100, 10))
    assert unlabeled.neighbor_accuracies(points, points, images, 0) == (100, 100)
    assert max(unlabeled.neighbor_accuracies(0 * points, 0 * points, images, 0)) == 10


def test_variants_start_from_the_same_weights_and_give_unit_embeddings():
    found, x = [], np.random.default_rng(0).random((4, 8, 8, 2)).astype("float32")
    for variant in unlabeled.VARIANTS:
        keras.utils.set_random_seed(0)
        model, encoder = unlabeled.model_of_pairs(variant)
        found.append(np.asarray(model(x)))
        np.testing.assert_allclose(np.linalg.norm(found[-1], axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(found[-1][:, 0], encoder(x[..., :1]), rtol=1e-5)
        np.testing.assert_array_equal(found[-1], found[0])


@pytest.mark.parametrize("variant", unlabeled.VARIANTS)
def test_only_variants_with_an_energy_add_one_in_training(variant):
    keras.utils.set_random_seed(0)
    model, _ = unlabeled.model_of_pairs(variant)
    x = np.random.default_rng(0).random((4, 8, 8, 2)).astype("float32")
    decay = sum(map(float, model.losses))
    model(x, training=True)
    energy = sum(map(float, model.losses)) - decay
    assert (abs(energy) > 1e-3) == (unlabeled.VARIANTS[variant][1] is not None)
