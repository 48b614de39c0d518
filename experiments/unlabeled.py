"""Embeddings learned without labels: energies against a contrastive loss.

Two views of a digit, under different transformations, are pulled to the same embedding. Alone, this
has a trivial minimum: one embedding for all images. An energy of the batch excludes it, because it
is lowest if embeddings are evenly spread. A contrastive loss (InfoNCE) excludes it by a comparison
of each image with the others of its batch.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.neighbors import KNeighborsClassifier

from experiments.classifiers import feature_network, fit
from experiments.crowding import transformed
from experiments.data import Images, split_digits
from experiments.experiment import Experiment, Outcome
from experiments.records import Config
from keras_mhe import MHE, Uniformity, batch_energy

FEATURES, VIEWS, LABELS, DRAWS, BATCH = 16, 10, 5, 20, 64
_TEMPERATURE = 0.2
# Whether the loss is contrastive, and the energy of the batch.
VARIANTS: dict[str, tuple[bool, keras.Regularizer | None]] = {
    "contrastive": (True, None),
    "alignment alone": (False, None),
    **{f"MHE({factor:g})": (False, MHE(factor)) for factor in (1.0, 10.0)},
    "Gaussian(1)": (False, MHE(1.0, distance="gaussian")),
    "contrastive + MHE(1)": (True, MHE(1.0)),
}


def random_views(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns random views, `(count * images, 8, 8)`: first one view of each image, then another.

    Each view has a transformation of its own, unlike in `crowding`.
    """
    views = [transformed(image[None, ..., 0], count, rng)[:, 0, ..., 0] for image in images]
    return np.stack(views, axis=1).reshape(-1, *images.shape[1:3])


def alignment(_: Any, embeddings: Any) -> Any:
    """Returns the squared distance between the two embeddings of each image."""
    return ops.sum(ops.square(embeddings[:, 0] - embeddings[:, 1]), axis=-1)


def contrast(_: Any, embeddings: Any) -> Any:
    """Returns the cross entropy of finding the second view of each image in the batch."""
    logits = ops.matmul(embeddings[:, 0], ops.transpose(embeddings[:, 1])) / _TEMPERATURE
    return ops.logsumexp(logits, axis=-1) - ops.diagonal(logits)


def model_of_pairs(variant: str) -> tuple[keras.Model, keras.Sequential]:
    """Returns a model from pairs of views to pairs of embeddings, and its encoder."""
    encoder = feature_network((8, 8, 1), FEATURES)
    encoder.add(keras.layers.UnitNormalization())
    pair = keras.Input((8, 8, 2))
    first, second = encoder(pair[..., :1]), encoder(pair[..., 1:])
    _, energy = VARIANTS[variant]
    if energy is not None:
        first = Uniformity(energy)(first)
    return keras.Model(pair, ops.stack([first, second], axis=1)), encoder


def few_labels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns indices of `LABELS` points of each class."""
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.choice(members, LABELS, replace=False) for members in classes])


def neighbor_accuracies(
    points: np.ndarray, test_points: np.ndarray, images: Images, seed: int
) -> tuple[float, float]:
    """Returns how often the nearest labeled point has the right label, in percent.

    The first number is for few labels, as a mean over `DRAWS` choices; the second for all labels.
    """
    rng = np.random.default_rng(seed)
    choices = [few_labels(images.y, rng) for _ in range(DRAWS)]
    scores = [
        100 * KNeighborsClassifier(1).fit(points[k], images.y[k]).score(test_points, images.y_test)
        for k in (*choices, np.arange(len(points)))
    ]
    return float(np.mean(scores[:-1])), float(scores[-1])


def run(config: Config, source: str) -> Outcome:
    """Trains without labels, and measures embeddings of other images with few and all labels."""
    seed, variant = int(config["seed"]), str(config["variant"])
    optimizer = str(config["optimizer"])
    images = split_digits(seed)
    rng = np.random.default_rng(seed)
    views, test_views = random_views(images.x, 2 * VIEWS, rng), random_views(images.x_test, 1, rng)
    pairs = np.stack(np.split(views, 2), axis=-1)
    model, encoder = model_of_pairs(variant)
    loss = contrast if VARIANTS[variant][0] else alignment
    passes = int(config["passes"])
    fit(model, pairs, np.zeros(len(pairs)), seed, passes, BATCH, loss=loss, optimizer=optimizer)
    # Labeled and test images are views too: an embedding should not depend on the transformation.
    shown = [x[..., None] for x in (views[: len(images.x)], test_views)]
    points, test_points = (encoder.predict(x, batch_size=500, verbose=0) for x in shown)
    few, all_labels = neighbor_accuracies(points, test_points, images, seed)
    pixels = [x.reshape(len(x), -1) for x in shown]
    few_pixels, all_pixels = neighbor_accuracies(*pixels, images, seed)
    return Outcome(
        {
            "5 labels %": few,
            "all labels %": all_labels,
            "energy": float(batch_energy(test_points)),
            "pixels, 5 labels %": few_pixels,
            "pixels, all labels %": all_pixels,
        }
    )


experiment = Experiment(
    "unlabeled",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("5 labels %", "all labels %"),
    grid={"optimizer": ("adam",), "passes": (4,)},
    quick_grid={"passes": (1,)},
    chance_level=lambda config: 10,
)
