"""Energies and angles while a model trains."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mhe.axes import check_integer
from keras_mhe.choosing import Where, check_model
from keras_mhe.measuring import measured
from keras_mhe.outputs import output_layers
from keras_mhe.report import Report


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Argument `log_dir` of EnergyMonitor needs tensorboardX. Install it with: "
            'pip install "keras-mhe[monitor]"'
        ) from error
    return SummaryWriter


class EnergyMonitor(keras.callbacks.Callback):
    """Records where the energies of a model's kernels stand while it trains.

    `position = (energy - bound) / (uniform - bound)`, 0 the least possible and 1 random: that of
    every kernel, the angles between neurons and what is wrong with them, as `energy_report` says.
    The headline numbers go into `logs`, where `History`, CSVLogger, TensorBoard, EarlyStopping and
    other callbacks behind this one find them: `energy_position`, the mean of the kernels;
    `worst_energy_position`; `smallest_angle` in degrees; `faulty_neurons`, how many are zero,
    duplicate or not finite. (EarlyStopping wants to be told `mode="min"`, or `"max"` for angles.)

    The model needs no regularizer. A report takes less than a training step, on the host, whatever
    device trains: once an epoch that is under 1 % where epochs have some 70 steps, in large
    networks 20.

    Args:
        every: `"epoch"`, or a number of steps after which to record within epochs too. The state
            before training is recorded as well, if the model is built by then.
        log_dir: folder for TensorBoard: positions, energies and smallest angles of each kernel,
            and histograms of angles, by step. None writes nothing.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of a neuron counts as that neuron; None is as in
            `energy_report`.
        softening: distance below which the potential goes on as a straight line, as in
            `energy_report`.
        where: which layers, as in `energy_report`; None is all.

    Attributes:
        history: list of dicts, one for each time: `epoch` and `step`, how many were over (epochs as
            `fit` counts them), and `summary` and `rows` as in `Report.to_dict`. Another `fit` goes
            on with it, and `keras_mhe.plots.energies_over_training` draws it.
        report: the last `Report`.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range, some of them at
            the beginning of training.
        ModuleNotFoundError: for `log_dir` without tensorboardX.

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
        >>> len(history.history["energy_position"])
        2
    """

    def __init__(
        self,
        every: str | int = "epoch",
        log_dir: str | Path | None = None,
        s: float = 2.0,
        *,
        distance: str = "euclidean",
        half_space: bool | None = None,
        softening: float | str = "auto",
        where: Where = None,
    ) -> None:
        super().__init__()
        what = '"epoch" or a positive number of steps'
        epochs = isinstance(every, str) and every == "epoch"
        self.every = every
        self._period = None if epochs else check_integer(every, "every", 1, what)
        self.log_dir = log_dir
        self.options: dict[str, Any] = {
            "s": s,
            "distance": distance,
            "half_space": half_space,
            "softening": softening,
            "where": where,
        }
        self.history: list[dict[str, Any]] = []
        self.report: Report | None = None
        self._make_writer = None if log_dir is None else _summary_writer()
        self._writer: Any = None
        # Steps and epochs over, steps before this epoch, updates of the optimizer until then.
        self._step = self._epoch = self._before = self._updates = 0
        self._fits = 0
        self._outputs: tuple[list[Any], str] | None = None
        if self._period is not None:
            # Only then: for whoever looks after every step Keras waits until it is computed.
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._outputs = None
        self._updates = self._count_updates()
        if not self.history:
            # Training may go on where another process left it.
            self._step = self._updates
        if self._make_writer is not None:
            # A suffix of its own: the writer names its files by the second.
            suffix = f".{self._fits}"
            self._writer = self._make_writer(str(self.log_dir), filename_suffix=suffix)
        self._fits += 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._before = epoch, self._step
        # TensorFlow builds some models at their first step only.
        if not self.history and self.model.built:
            self._record()

    def _after_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._period is not None
        last, self._step = self._step, self._before + batch + 1
        # Several steps may be executed at once.
        if self._step // self._period > last // self._period:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self._record()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._period is None:
            updates = self._count_updates()
            # A model may train by other optimizers than its own, or not know how long an epoch is.
            self._step += self.params.get("steps") or updates - self._updates
            self._updates = updates
        self._epoch = epoch + 1
        self._record()
        if logs is not None and self.report is not None:
            logs.update(self.report.summary)

    def _count_updates(self) -> int:
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            return 0
        # A variable of several copies is no number by itself.
        updates = int(keras.ops.convert_to_numpy(optimizer.iterations))
        return updates * (optimizer.gradient_accumulation_steps or 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _record(self) -> None:
        if self.history and self.history[-1]["step"] == self._step and self._step > self._before:
            # The last step of an epoch, recorded as a step already.
            self.history[-1]["epoch"] = self._epoch
            return
        if self._outputs is None:
            check_model(self.model)
            # Once: a model that says in Python what it does has to be called for it.
            self._outputs = output_layers(self.model)
        self.report = report = measured(self.model, self._outputs, **self.options)
        record = {"epoch": self._epoch, "step": self._step}
        content = report.to_dict()
        self.history.append({**record, "summary": content["summary"], "rows": content["rows"]})
        if self._writer is not None:
            self._write(report, self._step)

    def _write(self, report: Report, step: int) -> None:
        scalars: dict[str, float | None] = dict(report.summary)
        for row in report.rows:
            scalars[f"energy/{row.name}"] = row.energy
            scalars[f"position/{row.name}"] = row.position
            scalars[f"smallest_angle/{row.name}"] = row.smallest
            angles = row.nearest[np.isfinite(row.nearest)]
            if len(angles):
                self._writer.add_histogram(f"nearest_angle/{row.name}", angles, step)
        for name, value in scalars.items():
            if value is not None and not math.isnan(value):
                self._writer.add_scalar(name, value, step)
