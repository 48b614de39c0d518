"""Records energies and angles during training."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mhe._arguments import check_integer
from keras_mhe._printable import printable
from keras_mhe._steps import trained_batches
from keras_mhe.analysis._measure import report_of
from keras_mhe.analysis._report import Report
from keras_mhe.kernels._model import LayerFilter, check_model
from keras_mhe.kernels._named_axes import NamedAxes
from keras_mhe.kernels._outputs import output_layers
from keras_mhe_command._install import install_advice


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Argument `log_dir` of EnergyMonitor needs tensorboardX. {install_advice('monitor')}"
        ) from error
    return SummaryWriter


def _tags(names: Iterable[str]) -> list[str]:
    """A tag of TensorBoard for each name, which has only letters, digits, `_`, `-`, `.` and `/`.

    tensorboardX would replace other characters too, but the curves of `a b` and `a_b` would be one.
    """
    tags: dict[str, None] = {}
    for name in names:
        tag = unique = re.sub(r"[^-/\w.]", "_", printable(name))
        number = 1
        while unique in tags:
            number += 1
            unique = f"{tag}_{number}"
        tags[unique] = None
    return list(tags)


class EnergyMonitor(keras.callbacks.Callback):
    """Records energies and angles of a model's neurons during training.

    `position = (energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1
    is random. A record contains the numbers of `energy_report` for every kernel: position, energy,
    angles between neurons and faulty neurons.

    The callback also adds four numbers to `logs`: `position_mean`, the mean over the kernels;
    `position_max`, the largest position; `nearest_angle_min`, the smallest angle between two
    neurons of a kernel in degrees; `faulty_neurons`, the number of neurons that are zero, duplicate
    or not finite. `History`, CSVLogger, TensorBoard, EarlyStopping and other callbacks can use them
    if they come after this one in the list. For EarlyStopping, set `mode="min"`, or `mode="max"`
    for the angle.

    The model needs no regularizer. A report is computed on the host, whatever device trains the
    model. Without layers of many neurons, it takes less time than a training step: one report per
    epoch costs less than 1 % if an epoch has more than about 70 steps. An embedding of 20,000 words
    takes about 10 s; `where` can leave it out.

    Args:
        every: `"epoch"` for a record after each epoch, or a number of steps: `every=100` adds a
            record after every hundred steps. The state before training is recorded too, if the
            model is built by then.
        log_dir: folder for TensorBoard files. They contain the position, the energy, the smallest
            angle and a histogram of angles of each kernel, by step. None writes no files.
        s: power of the potential. This argument and the next four are as in `energy_report`: None
            means what the kernel's own energy says, or the default of its role.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian.
        half_space: whether the mirror image of a neuron counts as that neuron.
        softening: distance below which the potential is continued linearly.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers.
        axes: the axes of neurons by the names of layers, as in `regularize`.

    Attributes:
        history: list of records. A record is a dict with the keys `epoch` and `step`, the numbers
            of completed epochs (as `fit` counts them) and steps, and `summary` and `rows`, as in
            `Report.to_dict`. A further `fit` extends the list, and
            `keras_mhe.plots.energies_over_training` draws it.
        report: the last `Report`; None before the first record.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. Some arguments
            are checked only at the beginning of training.
        ModuleNotFoundError: if `log_dir` is given and tensorboardX is not installed.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS, who plot
    energies over training.

    Examples:
        >>> import keras, numpy as np
        >>> from keras_mhe import EnergyMonitor
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> monitor = EnergyMonitor()
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
        >>> [record["epoch"] for record in monitor.history]
        [0, 1, 2]
        >>> len(history.history["position_mean"])
        2
    """

    def __init__(
        self,
        every: str | int = "epoch",
        log_dir: str | Path | None = None,
        s: float | None = None,
        *,
        distance: str | None = None,
        t: float | None = None,
        half_space: bool | None = None,
        softening: float | str | None = None,
        where: LayerFilter = None,
        axes: NamedAxes = None,
    ) -> None:
        super().__init__()
        expected = '"epoch" or a positive number of steps'
        epochs = isinstance(every, str) and every == "epoch"
        self.every = every
        self._period = None if epochs else check_integer(every, "every", 1, expected)
        self.log_dir = log_dir
        self.options: dict[str, Any] = {
            "s": s,
            "distance": distance,
            "t": t,
            "half_space": half_space,
            "softening": softening,
            "where": where,
            "axes": axes,
        }
        self.history: list[dict[str, Any]] = []
        self.report: Report | None = None
        self._make_writer = None if log_dir is None else _summary_writer()
        self._writer: Any = None
        # Completed steps and epochs, steps before this epoch, updates of the optimizer before it.
        self._step = self._epoch = self._before = self._updates = 0
        self._fits = 0
        self._outputs: tuple[list[Any], str] | None = None
        if self._period is not None:
            # Not a method: Keras would wait for the result of every step, even if it is not used.
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._outputs = None
        self._updates = trained_batches(self.model)
        if not self.history:
            # Training may continue the run of another process.
            self._step = self._updates
        if self._make_writer is not None:
            # A different suffix for each `fit`: the writer names files by the time in seconds.
            suffix = f".{self._fits}"
            self._writer = self._make_writer(str(self.log_dir), filename_suffix=suffix)
        self._fits += 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._before = epoch, self._step
        # TensorFlow builds some models only in their first step.
        if not self.history and self.model.built:
            self._record()

    def _after_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._period is not None
        last, self._step = self._step, self._before + batch + 1
        # Keras may execute several steps between two calls.
        if self._step // self._period > last // self._period:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self._record()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._period is None:
            updates = trained_batches(self.model)
            # Keras does not always know the steps of an epoch. Updates of the optimizer are the
            # second choice, because a model may use other optimizers than its own.
            self._step += self.params.get("steps") or updates - self._updates
            self._updates = updates
        self._epoch = epoch + 1
        self._record()
        if logs is not None and self.report is not None:
            logs.update(self.report.summary)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _record(self) -> None:
        if self.history and self.history[-1]["step"] == self._step and self._step > self._before:
            # The last step of an epoch has already been recorded as a step.
            self.history[-1]["epoch"] = self._epoch
            return
        if self._outputs is None:
            check_model(self.model)
            # Only once: a subclassed model must be called for this.
            self._outputs = output_layers(self.model)
        self.report = report = report_of(self.model, self._outputs, **self.options)
        record = {"epoch": self._epoch, "step": self._step}
        content = report.to_dict()
        self.history.append({**record, "summary": content["summary"], "rows": content["rows"]})
        if self._writer is not None:
            self._write(report, self._step)

    def _write(self, report: Report, step: int) -> None:
        scalars: dict[str, float | None] = dict(report.summary)
        for tag, row in zip(_tags(row.name for row in report.rows), report.rows, strict=True):
            scalars[f"energy/{tag}"] = row.energy
            scalars[f"position/{tag}"] = row.position
            scalars[f"nearest_angle_min/{tag}"] = row.nearest_angle_min
            angles = row.nearest_angles[np.isfinite(row.nearest_angles)]
            if len(angles):
                self._writer.add_histogram(f"nearest_angle/{tag}", angles, step)
        for name, value in scalars.items():
            if value is not None and not math.isnan(value):
                self._writer.add_scalar(name, value, step)
