"""Long-tailed digits and CIFAR-10: for which dimensions and factors MHE improves accuracy."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from experiments.classifiers import (
    angle_metrics,
    class_vectors,
    feature_network,
    fit,
    optimizer_named,
    predict,
)
from experiments.data import Images, digit_images, load_images, scaled
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from keras_mhe import MHE

CLASSES = 10
FACTORS = (0.1, 1, 10, 100)
# Factors in units of position, with bounded gradients.
POSITIONS = (0.01, 0.1, 1, 10)
VARIANTS = {
    "baseline": None,
    **{f"MHE({factor:g})": MHE(factor, bounded=False) for factor in FACTORS},
    **{f"bounded MHE({factor:g})": MHE(factor) for factor in FACTORS},
    **{f"position {factor:g}": MHE(factor, scale="position") for factor in POSITIONS},
}
# Training images of the most frequent and of the rarest class.
_TAILS = {"digits": (100, 2), "cifar": (500, 5)}


def _long_tail(
    labels: np.ndarray, extremes: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Returns indices of a training set. Its class sizes fall geometrically with the label."""
    counts = np.round(np.geomspace(*extremes, CLASSES)).astype(int)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(counts)]
    )


def long_tailed_images(config: Config, source: str) -> Images:
    """Returns a long-tailed training set and all test images; the seed selects rare classes."""
    rng = np.random.default_rng(int(config["seed"]))
    rank = rng.permutation(CLASSES)
    if config["data"] == "digits":
        x, labels = digit_images()
        y = rank[labels]
        chosen = _long_tail(y, _TAILS["digits"], rng)
        rest = np.setdiff1d(np.arange(len(y)), chosen)
        return Images(x[chosen], y[chosen], x[rest], y[rest])
    images = load_images(source)
    if (classes := int(images.y.max()) + 1) != CLASSES:
        raise InputError(f"Data must have {CLASSES} classes. Received: {classes} in {source}")
    y = rank[images.y]
    chosen = _long_tail(y, _TAILS["cifar"], rng)
    return Images(scaled(images.x[chosen]), y[chosen], scaled(images.x_test), rank[images.y_test])


def recall_metrics(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Returns the mean recall of all classes and of the rarest ones, which are the last ones."""
    recall = np.array([100 * np.mean(predictions[labels == k] == k) for k in range(CLASSES)])
    return {"balanced accuracy %": recall.mean(), "3 rarest classes %": recall[-3:].mean()}


def _mean_length(vectors: Any, axis: int) -> float:
    return np.linalg.norm(keras.ops.convert_to_numpy(vectors), axis=axis).mean()


def train_and_test(
    config: Config, source: str, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Outcome:
    """Trains once on a long-tailed training set."""
    optimizer = str(config["optimizer"])
    l2 = optimizer_named(optimizer).l2
    seed, images = int(config["seed"]), long_tailed_images(config, source)
    features = feature_network(images.x.shape[1:], int(config["features"]), l2=l2)
    head = class_vectors(CLASSES, VARIANTS[str(config["variant"])], l2)
    model = keras.Sequential([features, head])
    passes, rate = int(config["passes"]), float(config["rate"])
    fit(
        model,
        images.x,
        images.y,
        seed,
        passes,
        rate=rate,
        optimizer=optimizer,
        callbacks=callbacks,
    )
    points, predictions = predict(features, head, images.x_test)
    return Outcome(
        {
            **recall_metrics(images.y_test, predictions),
            **angle_metrics(model, points, images.y_test),
            "length of class vectors": _mean_length(head.kernel, axis=0),
            "length of features": _mean_length(points, axis=1),
            "training accuracy %": 100 * np.mean(predict(features, head, images.x)[1] == images.y),
        }
    )


def run(config: Config, source: str) -> Outcome:
    """Trains once with an energy of class vectors."""
    return train_and_test(config, source)


experiment = Experiment(
    "imbalance",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("balanced accuracy %", "3 rarest classes %"),
    grid={
        "data": ("digits",),
        "passes": (40,),
        "features": (2, 3, 8, 32, 128),
        "optimizer": ("sgd",),
        "rate": (0.02,),
    },
    quick_grid={"passes": (5,), "features": (3,)},
    # Gains by dimension on digits, and where MHE fails; losses and gains on CIFAR-10.
    page_rows=(
        {
            "data": ("cifar10_jpeg",),
            "features": (2,),
            "variant": ("MHE(10)", "bounded MHE(10)", "position 1"),
        },
        {"data": ("cifar10_jpeg",), "features": (8, 128), "variant": ("position 1",)},
        {
            "data": ("digits",),
            "features": (3,),
            "variant": ("MHE(100)", "bounded MHE(100)", "position 1"),
        },
        {
            "data": ("digits",),
            "features": (8,),
            "variant": ("MHE(10)", "bounded MHE(100)", "position 1"),
        },
        {"data": ("digits",), "features": (32, 128), "variant": ("position 1",)},
    ),
    chance_level=lambda config: 100 / CLASSES,
    plotted_variants=(
        "MHE(1)",
        "MHE(10)",
        "MHE(100)",
        "bounded MHE(10)",
        "bounded MHE(100)",
        "position 1",
    ),
    x_axis="features",
)
