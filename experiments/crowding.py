"""Few to many classes in few to many dimensions, on equally many images: effect of crowding.

Each class is one handwritten digit under many transformations (rotation, shift, scale), which are
the same for all classes. Test images show the same digits under other transformations.
"""

from typing import Any

import keras
import numpy as np
from scipy import ndimage

from experiments.classifiers import (
    UnitClassVectors,
    angle_metrics,
    class_vectors,
    feature_network,
    fit,
    predict,
)
from experiments.data import Images, digit_images
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from keras_mhe import MHE, class_energy

TRAIN, TEST = 20_000, 5_000
# Regularizer of the class vectors, factor of the energy of each batch's classes, and whether the
# gradient of that energy is bounded.
VARIANTS: dict[str, tuple[keras.Regularizer | None, float, bool]] = {
    "baseline": (None, 0.0, False),
    **{f"MHE({factor:g})": (MHE(factor, bounded=False), 0.0, False) for factor in (0.1, 1, 10)},
    **{f"class_energy({factor:g})": (None, factor, False) for factor in (1.0, 10.0)},
    **{f"bounded MHE({factor:g})": (MHE(factor), 0.0, False) for factor in (0.1, 1, 10, 100)},
    **{f"bounded class_energy({factor:g})": (None, factor, True) for factor in (1.0, 10.0, 100.0)},
    **{
        f"position {factor:g}": (MHE(factor, scale="position"), 0.0, False)
        for factor in (0.01, 0.1, 1, 10)
    },
}
_HEADS = {"plain": class_vectors, "normalized": UnitClassVectors}


def transformed(digits: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Applies `count` random transformations to all digits; returns `(count, digits, 8, 8, 1)`."""
    center = (np.array(digits.shape[1:]) - 1) / 2
    results = []
    for angle, scale, *shift in rng.uniform((-0.5, 0.8, -1, -1), (0.5, 1.2, 1, 1), (count, 4)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
        offset = center - turn @ (center + shift)
        # The first axis counts digits and is not transformed.
        matrix, offset = np.pad(turn, ((1, 0), (1, 0))), np.concatenate([[0], offset])
        matrix[0, 0] = 1
        results.append(ndimage.affine_transform(digits, matrix, offset, order=1))
    return np.stack(results)[..., None]


def transformed_digits(classes: int, seed: int) -> Images:
    """Returns about `TRAIN` and `TEST` images, equally many for each class."""
    rng = np.random.default_rng(seed)
    images, _ = digit_images()
    if classes > len(images):
        raise InputError(f"There are {len(images)} digits, one per class. Received: {classes=}")
    digits = images[rng.permutation(len(images))[:classes], :, :, 0]
    x, x_test = (
        transformed(digits, count // classes, rng).reshape(-1, 8, 8, 1) for count in (TRAIN, TEST)
    )
    y, y_test = (np.tile(np.arange(classes), count // classes) for count in (TRAIN, TEST))
    return Images(x, y, x_test, y_test)


class WithClassEnergy(keras.Sequential):
    """Adds to the loss the energy of the classes of each batch against all classes."""

    def __init__(self, layers: list[Any], factor: float, bounded: bool) -> None:
        super().__init__(layers)
        self.factor, self.bounded = factor, bounded

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        kernel = self.get_layer("classes").kernel
        return loss + class_energy(kernel, y, factor=self.factor, bounded=self.bounded)


def run(config: Config, source: str) -> Outcome:
    """Trains once; the seed selects the digits and their transformations."""
    if config["head"] not in _HEADS:
        raise InputError(f"Heads are {', '.join(_HEADS)}. Received: {config['head']}")
    seed, classes, variant = int(config["seed"]), int(config["classes"]), str(config["variant"])
    images = transformed_digits(classes, seed)
    features = feature_network(images.x.shape[1:], int(config["features"]), width=256)
    regularizer, factor, bounded = VARIANTS[variant]
    head = _HEADS[str(config["head"])](classes, regularizer)
    stack = [features, head]
    model = WithClassEnergy(stack, factor, bounded) if factor else keras.Sequential(stack)
    fit(model, images.x, images.y, seed, int(config["passes"]), batch=100, rate=0.1)
    points, predictions = predict(features, head, images.x_test)
    return Outcome(
        {
            "accuracy %": 100 * np.mean(predictions == images.y_test),
            **angle_metrics(model, points, images.y_test),
        }
    )


experiment = Experiment(
    "crowding",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("accuracy %",),
    grid={
        "passes": (20,),
        "head": ("plain", "normalized"),
        "classes": (10, 100, 1000),
        "features": (3, 8, 32),
    },
    quick_grid={"passes": (1,), "head": ("plain",), "classes": (10,), "features": (3,)},
    # Losses in few dimensions and with many classes, and the recommended factors.
    page_rows=(
        {
            "head": ("plain",),
            "classes": (10,),
            "features": (3,),
            "variant": ("MHE(10)", "bounded MHE(10)", "position 1"),
        },
        {
            "head": ("plain",),
            "classes": (100,),
            "features": (3,),
            "variant": ("MHE(10)", "bounded MHE(10)", "position 0.1"),
        },
        {
            "head": ("plain",),
            "classes": (100,),
            "features": (8,),
            "variant": ("MHE(10)", "position 0.1"),
        },
        {
            "head": ("normalized",),
            "classes": (100,),
            "features": (32,),
            "variant": ("position 0.1",),
        },
        {
            "head": ("normalized",),
            "classes": (1000,),
            "features": (8, 32),
            "variant": ("position 0.1", "position 0.01"),
        },
    ),
    page_metrics=("accuracy %", "smallest angle of classes °"),
    chance_level=lambda config: 100 / int(config["classes"]),
    plotted_variants=(
        "MHE(1)",
        "MHE(10)",
        "class_energy(10)",
        "bounded MHE(10)",
        "position 1",
        "position 0.1",
        "position 0.01",
    ),
    x_axis="features",
)
