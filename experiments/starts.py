"""Low-energy initial kernels and fixed class vectors on long-tailed digits.

Does it help to start from directions of minimum energy, or to fix class vectors there? Do such
kernels keep a better position than those of the default initializer?
"""

import keras
import numpy as np

from experiments.classifiers import angle_metrics, class_vectors, feature_network, fit, predict
from experiments.experiment import Experiment, Outcome
from experiments.imbalance import CLASSES, long_tailed_images, recall_metrics
from experiments.records import Config
from keras_mhe import MHE, energy_report
from keras_mhe.initializers import MinimumEnergy

VARIANTS = (
    "baseline",
    "low-energy classes",
    "low-energy layers",
    "fixed prototypes",
    "fixed random",
    "bounded MHE(10)",
)


def _random_directions(shape: tuple[int, int], seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=0)


def _set_start(model: keras.Sequential, variant: str, seed: int) -> None:
    """Replaces initial kernels of the baseline by those of a variant."""
    features, head = model.layers
    shape = tuple(head.kernel.shape)
    if variant.startswith("fixed"):
        head.trainable = False
        if variant == "fixed random":
            head.kernel.assign(_random_directions(shape, seed))
        else:
            head.kernel.assign(MinimumEnergy(scale=1.0, mode="fan_in", seed=seed)(shape))
    if variant.startswith("low-energy"):
        head.kernel.assign(MinimumEnergy(seed=seed)(shape))
    if variant == "low-energy layers":
        for layer in features.layers:
            if hasattr(layer, "kernel"):
                # The norms remain those of the default initializer.
                start = MinimumEnergy(half_space=True, seed=seed)
                layer.kernel.assign(start(tuple(layer.kernel.shape)))


def _positions(model: keras.Sequential) -> tuple[float, float]:
    """Returns the position of the class vectors, and the mean position of all other kernels."""
    *hidden, classes = [row.position for row in energy_report(model).rows]
    return classes, float(np.mean(hidden))


def run(config: Config, source: str) -> Outcome:
    """Trains once on a long-tailed training set."""
    seed, images = int(config["seed"]), long_tailed_images(config, source)
    variant = str(config["variant"])
    features = feature_network(images.x.shape[1:], int(config["features"]))
    head = class_vectors(CLASSES, MHE(10) if variant == "bounded MHE(10)" else None)
    model = keras.Sequential([features, head])
    _set_start(model, variant, seed)
    before = _positions(model)
    fit(model, images.x, images.y, seed, int(config["passes"]))
    after = _positions(model)
    points, predictions = predict(features, head, images.x_test)
    return Outcome(
        {
            **recall_metrics(images.y_test, predictions),
            "class vectors, position": after[0],
            "hidden layers, position": after[1],
            "class vectors, position before": before[0],
            "hidden layers, position before": before[1],
            **angle_metrics(model, points, images.y_test),
        }
    )


experiment = Experiment(
    "starts",
    __doc__,
    run,
    VARIANTS,
    main_metrics=(
        "balanced accuracy %",
        "3 rarest classes %",
        "class vectors, position",
        "hidden layers, position",
    ),
    grid={"data": ("digits",), "passes": (40,), "features": (2, 3, 16)},
    quick_grid={"passes": (5,), "features": (3,)},
    # All but the control with random fixed vectors.
    page_rows=({"variant": tuple(name for name in VARIANTS[1:] if name != "fixed random")},),
    page_metrics=("balanced accuracy %", "3 rarest classes %"),
    chance_level=lambda config: 100 / CLASSES,
    x_axis="features",
)
