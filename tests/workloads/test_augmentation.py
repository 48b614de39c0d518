"""Augmentation: every image once per pass, crops, mirrored images, reproducible batches."""

import numpy as np
import pytest

pytestmark = pytest.mark.once

augmentation = pytest.importorskip(
    "workloads.augmentation", reason="only a checkout has experiments"
)


def test_a_pass_uses_a_crop_of_every_image_once():
    images = np.arange(1, 257, dtype="float32")[:, None, None, None] * np.ones((1, 8, 8, 3))
    batches = augmentation.AugmentedImages(images, np.arange(256), steps=1, seed=0)
    labels, crops = [], []
    for _ in range(4):
        assert len(batches) == 1
        x, y = batches[0]
        labels.append(y)
        crops.append(x)
        np.testing.assert_array_equal(x.max(axis=(1, 2, 3)), y + 1)
        assert set(np.unique(x)) <= {0, *np.arange(1, 257)}
        batches.on_epoch_end()
    for half in (0, 2):
        assert sorted(np.concatenate(labels[half : half + 2])) == list(range(256))
    assert not np.array_equal(labels[0], labels[2])
    again = augmentation.AugmentedImages(images, np.arange(256), steps=4, seed=0)
    for index in range(4):
        np.testing.assert_array_equal(again[index][0], crops[index])


def test_half_of_the_images_are_mirrored():
    ramp = np.arange(8.0)[None, None, :, None] * np.ones((128, 8, 8, 3))
    x, _ = augmentation.AugmentedImages(ramp, np.zeros(128, int), steps=1, seed=1)[0]
    falling = np.sum(np.diff(x[..., 0], axis=2) < 0, axis=(1, 2)) > 8
    assert 40 < falling.sum() < 88


def test_draws_do_not_depend_on_how_steps_are_divided():
    whole = augmentation.draw(3, 2, 4, 300)
    for k in range(4):
        for one, all_steps in zip(augmentation.draw(3, 2 + k, 1, 300), whole, strict=True):
            np.testing.assert_array_equal(one[0], all_steps[k])


def test_crops_are_shifted_and_mirrored_parts_of_the_padded_image():
    images = augmentation.padded(np.random.default_rng(0).random((300, 8, 8, 3)))
    draws = augmentation.draw(0, 0, 1, 300)
    batch = augmentation.Draws(*(part[0] for part in draws))
    found = augmentation.crops(images, batch, np)
    for k in range(augmentation.BATCH):
        row, column = batch.shift[:, k]
        crop = images[batch.image[k], row : row + 8, column : column + 8]
        np.testing.assert_array_equal(found[k], crop[:, ::-1] if batch.mirrored[k] else crop)
