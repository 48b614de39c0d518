"""Fine-tuning a pre-trained network on few digits: what an energy does to old and new skills.

A network learns the digits 0 to 4 from many images. A copy of it with a new output layer then
learns the digits 5 to 9 from few images, with and without an energy.
"""

import keras
import numpy as np

from experiments.classifiers import class_vectors, feature_network, fit, predict
from experiments.data import Images, digit_images
from experiments.experiment import Experiment, Outcome
from experiments.records import Config
from keras_mhe import MHE, HalfSpaceMHE, energy_report, regularize

CLASSES, FEATURES, PASSES = 5, 32, 20
VARIANTS: dict[str, tuple[keras.Regularizer | None, keras.Regularizer | None]] = {
    "baseline": (None, None),
    **{f"hidden {factor:g}": (HalfSpaceMHE(factor), None) for factor in (0.1, 1, 10, 100, 1000)},
    "output 10": (None, MHE(10.0)),
}


def tasks(seed: int, shots: int) -> tuple[Images, Images]:
    """Returns the digits 0 to 4, and 5 to 9 with few training images. Half is for testing."""
    rng = np.random.default_rng(seed)
    x, y = digit_images()
    parts = []
    for first in (0, CLASSES):
        train, test = [], []
        for label in range(first, first + CLASSES):
            order = rng.permutation(np.flatnonzero(y == label))
            half = len(order) // 2
            test.append(order[:half])
            train.append(order[half:][: shots if first else None])
        chosen, rest = np.concatenate(train), np.concatenate(test)
        parts.append(Images(x[chosen], y[chosen] - first, x[rest], y[rest] - first))
    old, new = parts
    return old, new


def _accuracy(features: keras.Model, head: keras.layers.Layer, images: Images) -> float:
    _, predictions = predict(features, head, images.x_test)
    return 100 * float(np.mean(predictions == images.y_test))


def run(config: Config, source: str) -> Outcome:
    """Pre-trains, fine-tunes, and measures both tasks and the turns of the neurons."""
    seed = int(config["seed"])
    old, new = tasks(seed, int(config["shots"]))
    features = feature_network(old.x.shape[1:], FEATURES)
    old_head, new_head = class_vectors(CLASSES, None), class_vectors(CLASSES, None)
    fit(keras.Sequential([features, old_head]), old.x, old.y, seed, PASSES)
    before = keras.models.clone_model(features)
    before.set_weights(features.get_weights())
    before_accuracy = _accuracy(features, old_head, old)
    model = keras.Sequential([features, new_head])
    model.build((None, *old.x.shape[1:]))
    hidden, output = VARIANTS[str(config["variant"])]
    if hidden is not None or output is not None:
        regularize(model, hidden=hidden, output=output)
    fit(model, new.x, new.y, seed, int(config["passes"]), batch=5, rate=float(config["rate"]))
    drift = energy_report(features, half_space=True, against=before)
    return Outcome(
        {
            "new task %": _accuracy(features, new_head, new),
            "old task %": _accuracy(features, old_head, old),
            "mean turn °": drift.summary["turned_mean"],
            "old task before %": before_accuracy,
            "mean position": drift.summary["position_mean"],
            "change of position": drift.summary["position_change"],
        }
    )


experiment = Experiment(
    "finetuning",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("new task %", "old task %", "mean turn °"),
    grid={"shots": (5,), "passes": (40,), "rate": (0.01, 0.05)},
    quick_grid={"passes": (2,), "rate": (0.05,)},
    chance_level=lambda config: 100 / CLASSES,
)
