"""Trains the same small network with and without MHE on long-tailed handwritten digits."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from scipy import linalg
from sklearn.datasets import load_digits

from keras_mhe._printable import printable
from keras_mhe.analysis import energy_report
from keras_mhe.cli._paired import estimate
from keras_mhe.plots import neurons_on_sphere
from keras_mhe.regularizers import MHE

CLASSES = 10
FEATURES = 3
# Training images of each class, from the most common to the rarest.
COUNTS = np.round(np.geomspace(100, 2, CLASSES)).astype(int)
RAREST = 3


class Split(NamedTuple):
    """Images with values from 0 to 1, and labels: the most common class is 0, the rarest is 9."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    digits: np.ndarray


def long_tailed_digits(seed: int) -> Split:
    """Draws a long-tailed training set. All other images of the data set are the test set."""
    images, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    digits = rng.permutation(CLASSES)
    labels = np.argsort(digits)[digit]
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in enumerate(COUNTS)]
    )
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    images = (images / 16).astype("float32")
    return Split(images[chosen], labels[chosen], images[rest], labels[rest], digits)


def build(regularizer: keras.Regularizer | None, steps: int) -> keras.Sequential:
    """A network with two hidden layers, features of three dimensions and ten class vectors."""
    decay = keras.regularizers.L2(5e-4)
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((64,)),
            dense(128, "relu", kernel_regularizer=decay),
            dense(128, "relu", kernel_regularizer=decay),
            dense(FEATURES, kernel_regularizer=decay, name="features"),
            dense(
                CLASSES,
                use_bias=False,
                kernel_regularizer=decay if regularizer is None else regularizer + decay,
                name="classes",
            ),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.02, steps)
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def train(
    split: Split,
    regularizer: keras.Regularizer | None,
    seed: int,
    epochs: int,
    on_epoch_end: Callable[[], None] = lambda: None,
) -> keras.Sequential:
    """Trains a network. Networks with the same seed start with the same weights."""
    keras.utils.set_random_seed(seed)
    batch = 32
    model = build(regularizer, steps=epochs * -(-len(split.labels) // batch))
    tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch_end())
    model.fit(
        split.images,
        split.labels,
        batch_size=batch,
        epochs=epochs,
        verbose=0,
        callbacks=[tick],
    )
    return model


def measure(model: keras.Sequential, split: Split, s: float) -> dict[str, float]:
    """The accuracy of a network on the test set, and angle and energy of its class vectors."""
    predictions = np.argmax(model.predict(split.test_images, verbose=0), axis=1)
    correct = predictions == split.test_labels
    recall = np.array([correct[split.test_labels == k].mean() for k in range(CLASSES)])
    # In full space, as in the regularizer.
    report = energy_report(model, s, half_space=False, where="classes")
    return {
        "balanced accuracy %": 100 * float(recall.mean()),
        f"{RAREST} rarest classes %": 100 * float(recall[-RAREST:].mean()),
        "smallest angle °": report.summary["nearest_angle_min"],
        f"energy (s={s:g})": report.rows[0].energy,
    }


def tabulate(baseline: list[dict[str, float]], regularized: list[dict[str, float]]) -> Table:
    """One row for each measure: mean ± standard error over seeds, and the paired difference."""
    table = Table(
        title=f"Test set, mean ± standard error over seeds ({len(baseline)})",
        caption="Last column: unclear if the paired 95 % interval of the difference contains 0.",
    )
    table.add_column("", no_wrap=True)
    for heading in ("baseline", "MHE", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("with MHE")
    for name in baseline[0]:
        without = [run[name] for run in baseline]
        with_mhe = [run[name] for run in regularized]
        difference = estimate(b - a for a, b in zip(without, with_mhe, strict=True))
        cells = map(str, (estimate(without), estimate(with_mhe), difference))
        table.add_row(name, *cells, difference.verdict)
    return table


def draw(split: Split, models: dict[str, keras.Sequential]) -> Figure:
    """Draws test features and class vectors on the sphere, for several networks side by side.

    The picture shows the front and the back of each sphere. All spheres after the first are rotated
    to bring their class vectors as close as possible to those of the first.
    """
    figure = Figure(figsize=(9.6 * len(models), 5.2), layout="constrained")
    halves = figure.subfigures(1, len(models), squeeze=False)[0]
    reference = None
    for half, (title, model) in zip(halves, models.items(), strict=True):
        features = keras.Model(model.inputs, model.get_layer("features").output)
        points = features.predict(split.test_images, verbose=0)
        neurons = keras.ops.convert_to_numpy(model.get_layer("classes").kernel)
        neurons = neurons / np.linalg.norm(neurons, axis=0)
        if reference is None:
            reference = neurons
        rotation, _ = linalg.orthogonal_procrustes(neurons.T, reference.T)
        half.suptitle(title, fontsize=20)
        sides = {"front": (20.0, 40.0), "back": (-20.0, 220.0)}
        axes = half.subplots(1, len(sides), subplot_kw={"projection": "3d"})
        for ax, (side, view) in zip(axes, sides.items(), strict=True):
            neurons_on_sphere(
                rotation.T @ neurons,
                points @ rotation,
                split.test_labels,
                names=split.digits,
                view=view,
                ax=ax,
            )
            ax.set_title(side, fontsize=13, color="0.4", y=-0.02)
    return figure


def run_demo(
    seeds: int = 12,
    factor: float = 10.0,
    s: float = 2.0,
    epochs: int = 40,
    output: Path = Path("keras-mhe-demo"),
) -> None:
    """Trains `seeds` pairs of networks, prints the table and saves the picture in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    variants = {"baseline": None, f"MHE({factor:g}, s={s:g})": MHE(factor, s)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    first_pair: dict[str, keras.Sequential] = {}
    # Parts of a path such as `[new]` and `:x:` are neither markup nor emoji.
    console = Console(markup=False, emoji=False)
    console.print(
        f"Long-tailed digits: {COUNTS.sum()} training images, {COUNTS.max()} of the most common "
        f"class, {COUNTS.min()} of the rarest; features of {FEATURES} dimensions; "
        f"{keras.backend.backend()} backend.",
        soft_wrap=True,
    )
    bar = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*bar, console=console) as progress:
        task = progress.add_task("", total=seeds * len(variants) * epochs)
        for seed in range(seeds):
            split = long_tailed_digits(seed)
            for name, regularizer in variants.items():
                progress.update(task, description=f"seed {seed + 1} of {seeds}, {name}")
                model = train(split, regularizer, seed, epochs, lambda: progress.advance(task))
                results[name].append(measure(model, split, s))
                if seed == 0:
                    first_pair[name] = model
    console.print(tabulate(*results.values()))
    picture = output / "sphere.png"
    draw(long_tailed_digits(0), first_pair).savefig(picture, dpi=100)
    place = printable(str(picture))
    console.print(f"Features and class vectors of the first seed: {place}", soft_wrap=True)
