"""Few to many classes in few to many dimensions, on as many images: what crowding costs.

Every class is one person, so to speak: one handwritten digit, seen turned, moved and sized in ways
that are the same for all. Test images show the same digits in other ways.
"""

from typing import Any

import keras
import numpy as np
from scipy import ndimage

from experiments.data import Images, digits
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from experiments.small import (
    UnitClassVectors,
    angle_figures,
    class_vectors,
    features_of,
    fit,
    guessed,
)
from keras_mhe import MHE, class_energy

TRAIN, TEST = 20_000, 5_000
# MHE of the kernel, and factors of the energy of each batch's classes.
VARIANTS: dict[str, tuple[keras.Regularizer | None, float]] = {
    "baseline": (None, 0.0),
    **{f"MHE({factor:g})": (MHE(factor), 0.0) for factor in (0.1, 1, 10)},
    **{f"class_energy({factor:g})": (None, factor) for factor in (1.0, 10.0)},
}
_HEADS = {"plain": class_vectors, "normalised": UnitClassVectors}


def _views(people: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """All people under `count` transformations, `(count, people, 8, 8, 1)`."""
    middle = (np.array(people.shape[1:]) - 1) / 2
    views = []
    for angle, size, *shift in rng.uniform((-0.5, 0.8, -1, -1), (0.5, 1.2, 1, 1), (count, 4)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / size
        offset = middle - turn @ (middle + shift)
        # The first axis counts people and stays.
        matrix, offset = np.pad(turn, ((1, 0), (1, 0))), np.concatenate([[0], offset])
        matrix[0, 0] = 1
        views.append(ndimage.affine_transform(people, matrix, offset, order=1))
    return np.stack(views)[..., None]


def identities(classes: int, seed: int) -> Images:
    """`TRAIN` and `TEST` images of so many classes, but for a rest, of each as many."""
    rng = np.random.default_rng(seed)
    images, _ = digits()
    if classes > len(images):
        raise InputError(f"There are {len(images)} digits to see. Received: classes={classes}")
    people = images[rng.permutation(len(images))[:classes], :, :, 0]
    x, x_test = (
        _views(people, count // classes, rng).reshape(-1, 8, 8, 1) for count in (TRAIN, TEST)
    )
    y, y_test = (np.tile(np.arange(classes), count // classes) for count in (TRAIN, TEST))
    return Images(x, y, x_test, y_test)


class WithClassEnergy(keras.Sequential):
    """The energy of the classes of each batch against all classes, beside the loss."""

    def __init__(self, layers: list[Any], factor: float) -> None:
        super().__init__(layers)
        self.factor = factor

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + self.factor * class_energy(self.get_layer("classes").kernel, y)


def run(config: Config, source: str) -> Outcome:
    """One training; which digits are people, and how they are seen, is drawn by seed."""
    if config["head"] not in _HEADS:
        raise InputError(f"Heads are {', '.join(_HEADS)}. Received: {config['head']}")
    seed, classes, variant = int(config["seed"]), int(config["classes"]), str(config["variant"])
    images = identities(classes, seed)
    features = features_of(images.x.shape[1:], int(config["features"]), width=256)
    regularizer, factor = VARIANTS[variant]
    head = _HEADS[str(config["head"])](classes, regularizer)
    stack = [features, head]
    model = WithClassEnergy(stack, factor) if factor else keras.Sequential(stack)
    fit(model, images.x, images.y, seed, int(config["passes"]), batch=100, rate=0.1)
    points, guesses = guessed(features, head, images.x_test)
    return Outcome(
        {
            "accuracy %": 100 * np.mean(guesses == images.y_test),
            **angle_figures(points, images.y_test, head.kernel),
        }
    )


experiment = Experiment(
    "crowding",
    __doc__,
    run,
    tuple(VARIANTS),
    headlines=("accuracy %",),
    grid={
        "passes": (20,),
        "head": ("plain", "normalised"),
        "classes": (10, 100, 1000),
        "features": (3, 8, 32),
    },
    quick={"passes": (1,), "head": ("plain",), "classes": (10,), "features": (3,)},
    chance=lambda config: 100 / int(config["classes"]),
    along="features",
)
