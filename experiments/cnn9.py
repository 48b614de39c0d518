"""CNN-9 on CIFAR with the papers' protocol, and one regularizer on all of its kernels."""

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any

import keras
import numpy as np

from experiments.data import load_images, scaled
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from keras_mhe import MGD, MHC, MHE, MHP, MHS, RMHP, CoMHE, EnergyMonitor, HalfSpaceMHE, regularize
from workloads.cnn9 import cnn9

# Images per batch, and pixels of padding on each side before random crops.
_BATCH, _PADDING = 128, 4
# Reports on the kernels during a training, at equal distances.
REPORTS = 20
# Figures of a report that a run keeps: their names in recorded details, and in rows of a report.
KEPT_FIGURES = {"position": "position", "smallest": "nearest_angle_min"}


class Orthogonal(keras.Regularizer):
    """Keras's `OrthogonalRegularizer`, which accepts matrices only, for kernels of any rank."""

    def __init__(self, factor: float = 0.01) -> None:
        self.matrix_regularizer = keras.regularizers.OrthogonalRegularizer(factor, mode="columns")

    def __call__(self, kernel: Any) -> Any:
        return self.matrix_regularizer(keras.ops.reshape(kernel, (-1, kernel.shape[-1])))


class SRIP(keras.Regularizer):
    """The largest singular value of `WᵀW - I`, from two steps of the power method.

    Source: Bansal et al., Can We Gain More from Orthogonality Regularizations in Training Deep
    CNNs?, NeurIPS 2018. The power method starts at the same random vector in every step.
    """

    def __init__(self, factor: float = 0.1) -> None:
        self.factor = factor

    def __call__(self, kernel: Any) -> Any:
        matrix = keras.ops.reshape(kernel, (-1, kernel.shape[-1]))
        gram = keras.ops.matmul(keras.ops.transpose(matrix), matrix)
        defect = gram - keras.ops.eye(matrix.shape[-1], dtype=matrix.dtype)
        vector = keras.random.normal((matrix.shape[-1], 1), dtype=matrix.dtype, seed=0)
        for _ in range(2):
            vector = keras.ops.normalize(keras.ops.matmul(defect, vector), axis=0)
        return self.factor * keras.ops.norm(keras.ops.matmul(defect, vector))


def _mhe(half_space: bool, distance: str, s: int) -> tuple[Any, Any]:
    # The papers' programs use -log of squared distances, and factor 0.1 for angles divided by pi.
    factor = {"euclidean": (2.0, 1.0, 1.0), "angular": (1.0, 0.1 * pi, 0.1 * pi**2)}[distance][s]
    hidden = MHE(factor, s, distance=distance, half_space=half_space, bounded=False)
    return hidden, MHE(10 * factor, s, distance=distance, bounded=False)


def _comhe(projection: str) -> tuple[Any, Any]:
    return CoMHE(1.0, projection=projection, bounded=False), MHE(10.0, bounded=False)


def _pair(form: Any, hidden: float, output: float) -> tuple[Any, Any]:
    return form(hidden, half_space=True, bounded=False), form(output, bounded=False)


def _position(factor: float) -> tuple[Any, Any]:
    return HalfSpaceMHE(factor, scale="position"), MHE(factor, scale="position")


def _hidden_only(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair[0], None


def _classes_only(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return None, pair[1]


# Regularizers of hidden kernels and of the last one, with the papers' factors and exact gradients.
# Those in units of position have bounded gradients.
VARIANTS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "baseline": lambda: (None, None),
    "orthogonal": lambda: (Orthogonal(), Orthogonal()),
    "SRIP": lambda: (SRIP(), SRIP()),
    **{f"MHE s={s}": partial(_mhe, False, "euclidean", s) for s in (0, 1, 2)},
    **{f"half-space MHE s={s}": partial(_mhe, True, "euclidean", s) for s in (0, 1, 2)},
    **{f"angular MHE s={s}": partial(_mhe, False, "angular", s) for s in (0, 1, 2)},
    **{f"angular half-space MHE s={s}": partial(_mhe, True, "angular", s) for s in (0, 1, 2)},
    "RP-CoMHE": partial(_comhe, "random"),
    "AP-CoMHE": partial(_comhe, "angle"),
    "adversarial CoMHE": partial(_comhe, "adversarial"),
    "MHS": partial(_pair, MHS, 0.2, 1.0),
    "MHP": partial(_pair, MHP, 1.0, 10.0),
    "RMHP": lambda: (RMHP(0.01, bounded=False), RMHP(0.1, bounded=False)),
    "MHC": partial(_pair, MHC, 0.01, 0.1),
    "MGD": partial(_pair, MGD, 0.01, 0.1),
    "position 0.1": partial(_position, 0.1),
    "half-space MHE s=2 (hidden)": lambda: _hidden_only(_mhe(True, "euclidean", 2)),
    "half-space MHE s=2 (classes)": lambda: _classes_only(_mhe(True, "euclidean", 2)),
    "position 0.1 (hidden)": lambda: _hidden_only(_position(0.1)),
    "position 1 (classes)": lambda: _classes_only(_position(1.0)),
}


class _Batches(keras.utils.PyDataset):
    """Random crops of padded images, half of them mirrored, in a new order in each pass.

    An epoch of Keras has `steps` steps, whatever the number of images.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> None:
        super().__init__()
        padding = ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0))
        self.images, self.labels, self.size = np.pad(images, padding), labels, images.shape[1]
        self.seed, self.steps, self.first_step = seed, steps, 0

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self) -> None:
        # Keras calls this before the first epoch too, so the first step of training is `steps`.
        self.first_step += self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        step = self.first_step + index
        passes, batch = divmod(step, len(self.labels) // _BATCH)
        order = np.random.default_rng([self.seed, 0, passes]).permutation(len(self.labels))
        chosen = order[batch * _BATCH :][:_BATCH]
        rng = np.random.default_rng([self.seed, 1, step])
        row, column = rng.integers(0, 2 * _PADDING + 1, (2, _BATCH, 1)) + np.arange(self.size)
        column = np.where(rng.random((_BATCH, 1)) < 0.5, column[:, ::-1], column)
        crops = self.images[chosen[:, None, None], row[:, :, None], column[:, None, :]]
        return crops, self.labels[chosen]


def _model(variant: str, width: int, classes: int, steps: int, rate: float) -> keras.Model:
    hidden, output = VARIANTS[variant]()
    if variant in ("baseline", "orthogonal", "SRIP"):
        model = cnn9(hidden, output, width, "auto", classes)
    else:
        model = cnn9(None, None, width, "auto", classes)
        # For stateful regularizers, `regularize` returns another model of the same layers.
        model = regularize(model, hidden, output).model
    # The papers divide the rate by ten after 20,000, 30,000 and 37,500 of 42,500 steps.
    boundaries = [round(steps * k / 42.5) for k in (20, 30, 37.5)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries, [rate, rate / 10, rate / 100, rate / 1000]
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def _curves(monitor: EnergyMonitor) -> dict[str, list[float | None]]:
    """Returns positions and smallest angles of every kernel, from before training to its end."""
    curves: dict[str, list[float | None]] = {}
    for record in monitor.history:
        for number, row in enumerate(record["rows"], 1):
            for figure, key in KEPT_FIGURES.items():
                value = row[key]
                points = curves.setdefault(f"layer {number} {figure}", [])
                points.append(None if value is None else round(value, 5))
    return curves


def _final_metrics(curves: dict[str, list[float | None]]) -> dict[str, float]:
    """Returns mean position and smallest angle after training; NaN where no kernel has one."""

    def last(figure: str) -> list[float]:
        points = [points[-1] for name, points in curves.items() if name.endswith(figure)]
        return [point for point in points if point is not None] or [np.nan]

    return {"mean position": np.mean(last("position")), "smallest angle °": min(last("smallest"))}


def run(config: Config, source: str) -> Outcome:
    """Trains once; measures accuracy on all test images, and the kernels during training."""
    seed, steps = int(config["seed"]), int(config["steps"])
    if steps % REPORTS:
        raise InputError(f"Steps must be a multiple of {REPORTS}. Received: steps={steps}")
    images, count = load_images(source), int(config["images"])
    if not _BATCH <= count <= len(images.y):
        raise InputError(
            f"Images must be from {_BATCH} to {len(images.y)}, the size of the training set. "
            f"Received: images={count}"
        )
    chosen = np.random.default_rng(seed).permutation(len(images.y))[:count]
    classes = int(images.y.max()) + 1
    model = _model(
        str(config["variant"]), int(config["width"]), classes, steps, float(config["rate"])
    )
    batches = _Batches(scaled(images.x[chosen]), images.y[chosen], steps // REPORTS, seed)
    monitor = EnergyMonitor()
    model.fit(batches, epochs=REPORTS, shuffle=False, verbose=0, callbacks=[monitor])
    logits = model.predict(scaled(images.x_test), batch_size=1000, verbose=0)
    curves = _curves(monitor)
    accuracy = 100 * np.mean(logits.argmax(axis=-1) == images.y_test)
    return Outcome({"accuracy %": accuracy, **_final_metrics(curves)}, curves)


experiment = Experiment(
    "cnn9",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("accuracy %",),
    # A quarter of the papers' width, a fifth of their images, 20 passes, and a rate that works.
    grid={
        "data": ("cifar10",),
        "width": (16,),
        "images": (10_000,),
        "steps": (1560,),
        "rate": (0.01,),
    },
    quick_grid={"data": ("digits",), "width": (4,), "images": (512,), "steps": (REPORTS,)},
    page_metrics=("accuracy %", "mean position"),
    default_variants=("baseline", "half-space MHE s=2", "half-space MHE s=0", "RP-CoMHE"),
)
