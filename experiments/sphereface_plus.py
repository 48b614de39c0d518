"""SphereFace, a multiplicative angular margin, with MHE on its class vectors: SphereFace+."""

from functools import partial
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from experiments.data import Images, digits
from experiments.experiment import Experiment, Outcome
from experiments.records import Config, Record
from experiments.small import UnitClassVectors, angle_figures, directions, features_of, fit
from keras_mhe import MHE
from keras_mhe.plots import neurons_on_sphere

CLASSES, FEATURES, TRAIN = 10, 3, 1000
VARIANTS = {"baseline": None, "MHE(1)": MHE(1.0), "MHE(10)": MHE(10.0)}
# How much of the plain cosine is left beside the margin; SphereFace anneals it down to this.
_PLAIN = 5.0
# Features that are kept for the picture.
_SHOWN = 400


class WithLengths(UnitClassVectors):
    """`|x| cos(x, w_j)` for each class vector w_j, and `|x|` behind them."""

    def call(self, features: Any) -> Any:
        lengths = ops.sqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-12)
        return ops.concatenate([super().call(features), lengths], axis=-1)


def margin_loss(labels: Any, outputs: Any, margin: int) -> Any:
    """Cross entropy of `|x| cos(x, w_j)`, with psi in place of the cosine of the right class.

    `psi(t) = (-1)^k cos(margin t) - 2k` for t in `[k pi / margin, (k + 1) pi / margin]`: the angle
    to the right class counts `margin` times. (Liu et al., 2017, "SphereFace", CVPR.)
    """
    logits, lengths = outputs[:, :-1], outputs[:, -1:]
    cosines = ops.clip(logits / lengths, -1 + 1e-6, 1 - 1e-6)
    angles = ops.arccos(cosines)
    k = ops.floor(margin * angles / np.pi)
    psi = (1 - 2 * (k % 2)) * ops.cos(margin * angles) - 2 * k
    right = ops.one_hot(ops.reshape(labels, (-1,)), logits.shape[-1])
    harder = lengths * (_PLAIN * cosines + psi) / (1 + _PLAIN)
    return ops.sparse_categorical_crossentropy(
        labels, ops.where(right > 0, harder, logits), from_logits=True
    )


def _split(seed: int) -> Images:
    x, y = digits()
    order = np.random.default_rng(seed).permutation(len(y))
    chosen, rest = order[:TRAIN], order[TRAIN:]
    return Images(x[chosen], y[chosen], x[rest], y[rest])


def run(config: Config, source: str) -> Outcome:
    """One training; margin 1 is a softmax over cosines."""
    seed = int(config["seed"])
    images = _split(seed)
    features = features_of(images.x.shape[1:], FEATURES)
    head = WithLengths(CLASSES, VARIANTS[str(config["variant"])])
    loss = partial(margin_loss, margin=int(config["margin"]))
    model = keras.Sequential([features, head])
    fit(model, images.x, images.y, seed, int(config["passes"]), loss=loss)
    points = features.predict(images.x_test, batch_size=500, verbose=0)
    guesses = ops.convert_to_numpy(head(points))[:, :-1].argmax(axis=1)
    shown = {
        "class vectors": directions(head.kernel, axis=0),
        "features": directions(points[:_SHOWN], axis=1),
        "labels": images.y_test[:_SHOWN],
    }
    return Outcome(
        {
            "accuracy %": 100 * np.mean(guesses == images.y_test),
            **angle_figures(points, images.y_test, head.kernel),
        },
        {name: array.round(3).tolist() for name, array in shown.items()} if seed == 0 else None,
    )


def draw(records: list[Record]) -> Figure:
    """Features of test images on the sphere, with the class vectors: seed 0, the largest margin."""
    first = [record for record in records if record["config"]["seed"] == 0]
    margin = max(record["config"]["margin"] for record in first)
    shown = [record for record in first if record["config"]["margin"] == margin]
    figure = plt.figure(figsize=(5 * len(shown), 5.4), layout="constrained")
    for number, record in enumerate(shown, 1):
        details, figures = record["details"], record["figures"]
        ax = figure.add_subplot(1, len(shown), number, projection="3d")
        arrays = (np.array(details[name]) for name in ("class vectors", "features", "labels"))
        neurons_on_sphere(*arrays, ax=ax)
        angle = figures["smallest angle of classes °"]
        ax.set_title(
            f"{record['config']['variant']}, margin {margin}\n"
            f"{figures['accuracy %']:.1f} %, smallest angle {angle:.0f}°",
            y=-0.06,
        )
    return figure


experiment = Experiment(
    "sphereface_plus",
    __doc__,
    run,
    tuple(VARIANTS),
    headlines=("accuracy %",),
    grid={"passes": (40,), "margin": (1, 2, 4)},
    quick={"passes": (2,), "margin": (4,)},
    chance=lambda config: 100 / CLASSES,
    along="margin",
    closer=draw,
)
