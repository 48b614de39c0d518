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
from sklearn.datasets import load_digits

from keras_mhe._printable import printable
from keras_mhe.analysis import energy_report
from keras_mhe.cli._demo_picture import RAREST, Panel, draw_class_vectors
from keras_mhe.cli._paired import estimate
from keras_mhe.regularizers import MHE

CLASSES = 10
FEATURES = 3
# Training images of each class, from the most common to the rarest.
COUNTS = np.round(np.geomspace(100, 2, CLASSES)).astype(int)
VARIANTS = ("without MHE", "with MHE")
# Names of measured values, in the order of the table.
ALL, RARE = "balanced accuracy %", f"{RAREST} rarest digits %"


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
    rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
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
        ALL: 100 * float(recall.mean()),
        RARE: 100 * float(recall[-RAREST:].mean()),
        "smallest angle °": report.summary["nearest_angle_min"],
        f"energy (s={s:g})": report.rows[0].energy,
    }


def tabulate(without: list[dict[str, float]], with_mhe: list[dict[str, float]]) -> Table:
    """One row for each measure: mean ± standard error over pairs, and the paired difference."""
    table = Table(
        title=f"Test images, mean ± standard error over pairs of networks ({len(without)})",
        caption="Balanced accuracy: all digits count equally. "
        "Unclear: the paired 95 % interval of the difference contains 0.",
    )
    table.add_column("", no_wrap=True)
    for heading in (*VARIANTS, "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for name in without[0]:
        left, right = ([run[name] for run in runs] for runs in (without, with_mhe))
        difference = estimate(b - a for a, b in zip(left, right, strict=True))
        cells = map(str, (estimate(left), estimate(right), difference))
        table.add_row(name, *cells, difference.verdict)
    return table


def describe(split: Split) -> str:
    """The number of training images of each digit, from the most common to the rarest."""
    (first, count), *others = zip(split.digits, np.bincount(split.labels), strict=True)
    counts = [f"{count} of digit {first}", *(f"{n} of {digit}" for digit, n in others)]
    return ", ".join(counts)


def draw(
    split: Split, models: dict[str, keras.Sequential], results: dict[str, list[dict[str, float]]]
) -> Figure:
    """Draws the class vectors of one pair of networks, with the mean accuracy of all pairs."""
    panels = []
    for title, model in models.items():
        accuracy, rarest = (np.mean([run[name] for run in results[title]]) for name in (ALL, RARE))
        kernel = keras.ops.convert_to_numpy(model.get_layer("classes").kernel)
        text = f"balanced accuracy {accuracy:.0f} %\n{RAREST} rarest digits: {rarest:.0f} %"
        panels.append(Panel(title, kernel, text))
    pairs = len(results[title])
    note = (
        "One line per digit: its class vector, a neuron of the output layer, in three dimensions. "
        "Pale lines point backward.\nImages: number of training images. "
    )
    note += (
        f"The first of {pairs} pairs of networks. Accuracy: mean of all pairs, on test images."
        if pairs > 1
        else "Accuracy: of these two networks, on test images."
    )
    return draw_class_vectors(panels, list(split.digits), list(np.bincount(split.labels)), note)


def run_demo(
    seeds: int = 12,
    factor: float = 10.0,
    s: float = 2.0,
    epochs: int = 40,
    output: Path = Path("keras-mhe-demo"),
) -> None:
    """Trains `seeds` pairs of networks, prints the table and saves the picture in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    variants = dict(zip(VARIANTS, (None, MHE(factor, s)), strict=True))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    first_pair: dict[str, keras.Sequential] = {}
    # Parts of a path such as `[new]` and `:x:` are neither markup nor emoji.
    console = Console(markup=False, emoji=False)
    first_split = long_tailed_digits(0)
    console.print(
        f"Long-tailed digits: {COUNTS.sum()} training images, features of {FEATURES} dimensions, "
        f"{keras.backend.backend()} backend. With MHE: MHE({factor:g}, s={s:g}) on the output "
        "layer.",
        soft_wrap=True,
    )
    console.print(
        "Classes are sorted by frequency, which each pair draws anew. Training images of the first "
        f"pair: {describe(first_split)}.",
        soft_wrap=True,
    )
    bar = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*bar, console=console) as progress:
        task = progress.add_task("", total=seeds * len(variants) * epochs)
        for seed in range(seeds):
            split = long_tailed_digits(seed)
            for name, regularizer in variants.items():
                progress.update(task, description=f"pair {seed + 1} of {seeds}, {name}")
                model = train(split, regularizer, seed, epochs, lambda: progress.advance(task))
                results[name].append(measure(model, split, s))
                if seed == 0:
                    first_pair[name] = model
    console.print(tabulate(*results.values()))
    picture = output / "sphere.png"
    draw(first_split, first_pair, results).savefig(picture, dpi=130)
    place = printable(str(picture))
    console.print(f"Class vectors of the first pair: {place}", soft_wrap=True)
