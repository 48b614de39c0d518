"""Long-tailed digits and CIFAR-10: where in dimension and factor a gain begins and ends."""

import keras
import numpy as np

from experiments.data import Images, cifar, digits, scaled
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from experiments.small import angle_figures, class_vectors, features_of, fit, guessed
from keras_mhe import MHE

CLASSES = 10
FACTORS = (0.1, 1, 10, 100)
VARIANTS = {"baseline": None, **{f"MHE({factor:g})": MHE(factor) for factor in FACTORS}}
# Images of the commonest and the rarest class of the training set.
_TAILS = {"digits": (100, 2), "cifar": (500, 5)}


def _long_tail(labels: np.ndarray, ends: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Indices of a training set whose classes, in their order, have geometrically fewer images."""
    counts = np.round(np.geomspace(*ends, CLASSES)).astype(int)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(counts)]
    )


def _split(config: Config, source: str) -> Images:
    """A long-tailed training set, whose rare classes go by seed, and all there is to test."""
    rng = np.random.default_rng(int(config["seed"]))
    rank = rng.permutation(CLASSES)
    if config["data"] == "digits":
        x, labels = digits()
        y = rank[labels]
        chosen = _long_tail(y, _TAILS["digits"], rng)
        rest = np.setdiff1d(np.arange(len(y)), chosen)
        return Images(x[chosen], y[chosen], x[rest], y[rest])
    images = cifar(source)
    if (classes := int(images.y.max()) + 1) != CLASSES:
        raise InputError(f"Long tails are of {CLASSES} classes. Received: {classes} in {source}")
    y = rank[images.y]
    chosen = _long_tail(y, _TAILS["cifar"], rng)
    return Images(scaled(images.x[chosen]), y[chosen], scaled(images.x_test), rank[images.y_test])


def run(config: Config, source: str) -> Outcome:
    """One training on a long tail."""
    seed, images = int(config["seed"]), _split(config, source)
    features = features_of(images.x.shape[1:], int(config["features"]))
    head = class_vectors(CLASSES, VARIANTS[str(config["variant"])])
    model = keras.Sequential([features, head])
    fit(model, images.x, images.y, seed, int(config["passes"]))
    points, guesses = guessed(features, head, images.x_test)
    recall = np.array([100 * np.mean(guesses[images.y_test == k] == k) for k in range(CLASSES)])
    return Outcome(
        {
            "balanced accuracy %": recall.mean(),
            "3 rarest classes %": recall[-3:].mean(),
            **angle_figures(points, images.y_test, head.kernel),
        }
    )


experiment = Experiment(
    "imbalance",
    __doc__,
    run,
    tuple(VARIANTS),
    headlines=("balanced accuracy %", "3 rarest classes %"),
    grid={"data": ("digits",), "passes": (40,), "features": (2, 3, 8, 32, 128)},
    quick={"passes": (5,), "features": (3,)},
    chance=lambda config: 100 / CLASSES,
    along="features",
)
