"""SphereFace (a multiplicative angular margin) with MHE on its class vectors: SphereFace+."""

from functools import partial
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from experiments.classifiers import (
    UnitClassVectors,
    angle_metrics,
    feature_network,
    fit,
    unit_vectors,
)
from experiments.data import split_digits
from experiments.experiment import Experiment, Outcome
from experiments.records import Config, Record
from keras_mhe import MHE
from keras_mhe.plots import neurons_on_sphere

CLASSES, FEATURES = 10, 3
VARIANTS = {
    "baseline": None,
    "MHE(1)": MHE(1.0, bounded=False),
    "MHE(10)": MHE(10.0, bounded=False),
}
# Weight of the plain cosine beside the margin. SphereFace anneals it down to this value.
_COSINE_WEIGHT = 5.0
# Number of features that are kept for the plot.
_PLOTTED = 400


class WithLengths(UnitClassVectors):
    """Computes `|x| cos(x, w_j)` for each class vector w_j, followed by `|x|`."""

    def call(self, features: Any) -> Any:
        lengths = ops.sqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-12)
        return ops.concatenate([super().call(features), lengths], axis=-1)


def margin_loss(labels: Any, outputs: Any, margin: int) -> Any:
    """Cross entropy of `|x| cos(x, w_j)`, where psi replaces the cosine of the correct class.

    `psi(t) = (-1)^k cos(margin t) - 2k` for t in `[k pi / margin, (k + 1) pi / margin]`: the angle
    to the correct class is multiplied by `margin`. (Liu et al., 2017, "SphereFace", CVPR.)
    """
    logits, lengths = outputs[:, :-1], outputs[:, -1:]
    cosines = ops.clip(logits / lengths, -1 + 1e-6, 1 - 1e-6)
    angles = ops.arccos(cosines)
    k = ops.floor(margin * angles / np.pi)
    psi = (1 - 2 * (k % 2)) * ops.cos(margin * angles) - 2 * k
    correct = ops.one_hot(ops.reshape(labels, (-1,)), logits.shape[-1])
    with_margin = lengths * (_COSINE_WEIGHT * cosines + psi) / (1 + _COSINE_WEIGHT)
    return ops.sparse_categorical_crossentropy(
        labels, ops.where(correct > 0, with_margin, logits), from_logits=True
    )


def run(config: Config, source: str) -> Outcome:
    """Trains once; margin 1 is a softmax over cosines."""
    seed = int(config["seed"])
    images = split_digits(seed)
    features = feature_network(images.x.shape[1:], FEATURES)
    head = WithLengths(CLASSES, VARIANTS[str(config["variant"])])
    loss = partial(margin_loss, margin=int(config["margin"]))
    model = keras.Sequential([features, head])
    fit(model, images.x, images.y, seed, int(config["passes"]), loss=loss)
    points = features.predict(images.x_test, batch_size=500, verbose=0)
    predictions = ops.convert_to_numpy(head(points))[:, :-1].argmax(axis=1)
    plotted = {
        "class vectors": unit_vectors(head.kernel, axis=0),
        "features": unit_vectors(points[:_PLOTTED], axis=1),
        "labels": images.y_test[:_PLOTTED],
    }
    return Outcome(
        {
            "accuracy %": 100 * np.mean(predictions == images.y_test),
            **angle_metrics(model, points, images.y_test),
        },
        {name: array.round(3).tolist() for name, array in plotted.items()} if seed == 0 else None,
    )


def draw(records: list[Record]) -> Figure:
    """Draws features of test images and class vectors on the sphere: seed 0, largest margin."""
    seed_0 = [record for record in records if record["config"]["seed"] == 0]
    margin = max(record["config"]["margin"] for record in seed_0)
    shown = [record for record in seed_0 if record["config"]["margin"] == margin]
    figure = plt.figure(figsize=(5 * len(shown), 5.4), layout="constrained")
    for number, record in enumerate(shown, 1):
        details, metrics = record["details"], record["figures"]
        ax = figure.add_subplot(1, len(shown), number, projection="3d")
        arrays = (np.array(details[name]) for name in ("class vectors", "features", "labels"))
        neurons_on_sphere(*arrays, ax=ax)
        angle = metrics["smallest angle of classes °"]
        ax.set_title(
            f"{record['config']['variant']}, margin {margin}\n"
            f"{metrics['accuracy %']:.1f} %, smallest angle {angle:.0f}°",
            y=-0.06,
        )
    return figure


experiment = Experiment(
    "sphereface_plus",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("accuracy %",),
    grid={"passes": (40,), "margin": (1, 2, 4)},
    quick_grid={"passes": (2,), "margin": (4,)},
    page_metrics=("accuracy %", "smallest angle of classes °"),
    chance_level=lambda config: 100 / CLASSES,
    x_axis="margin",
    detail_figure=draw,
)
