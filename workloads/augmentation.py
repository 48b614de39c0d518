"""Random crops of padded images, half of them mirrored, as the papers train."""

from typing import Any, NamedTuple

import keras
import numpy as np

# Images per batch, and pixels of padding on each side.
BATCH, PADDING = 128, 4


class Draws(NamedTuple):
    """Random choices for the images of some batches.

    Attributes:
        image: index of the image, `(steps, batch)`.
        shift: first row and first column of the crop, `(steps, 2, batch)`.
        mirrored: whether the crop is mirrored, `(steps, batch)`.
    """

    image: Any
    shift: Any
    mirrored: Any


def draw(seed: int, first_step: int, steps: int, images: int) -> Draws:
    """Draws the batches of some steps. Each pass over the images has a new order."""
    image, shift, mirrored = [], [], []
    orders: dict[int, np.ndarray] = {}
    for step in range(first_step, first_step + steps):
        passes, batch = divmod(step, images // BATCH)
        if passes not in orders:
            orders[passes] = np.random.default_rng([seed, 0, passes]).permutation(images)
        rng = np.random.default_rng([seed, 1, step])
        image.append(orders[passes][batch * BATCH :][:BATCH])
        shift.append(rng.integers(0, 2 * PADDING + 1, (2, BATCH)))
        mirrored.append(rng.random(BATCH) < 0.5)
    return Draws(
        np.stack(image).astype("int32"), np.stack(shift).astype("int32"), np.stack(mirrored)
    )


def padded(images: np.ndarray) -> np.ndarray:
    """Returns images with a border of zeros."""
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))


def crops(images: Any, draws: Draws, numpy: Any) -> Any:
    """Returns the crops of one batch, `(batch, height, width, channels)`.

    Args:
        images: padded images.
        draws: choices without the axis of steps.
        numpy: `numpy`, or `jax.numpy` in a compiled program.
    """
    size = numpy.arange(images.shape[1] - 2 * PADDING)
    row, column = draws.shift[0][:, None] + size, draws.shift[1][:, None] + size
    column = numpy.where(draws.mirrored[:, None], column[:, ::-1], column)
    return images[draws.image[:, None, None], row[:, :, None], column[:, None, :]]


class AugmentedImages(keras.utils.PyDataset):
    """Batches of random crops for `fit`.

    An epoch of Keras has `steps` steps, whatever the number of images.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> None:
        super().__init__()
        self.images, self.labels = padded(images), labels
        self.seed, self.steps, self.first_step = seed, steps, 0

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self) -> None:
        # Keras calls this before the first epoch too, so the first step of training is `steps`.
        self.first_step += self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        draws = draw(self.seed, self.first_step + index, 1, len(self.labels))
        [batch] = (Draws(*parts) for parts in zip(*draws, strict=True))
        return crops(self.images, batch, np), self.labels[batch.image]
