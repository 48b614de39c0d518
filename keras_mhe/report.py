"""Where the energy of every kernel of a model stands, and what is wrong with its neurons."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mhe.axes import neuron_array
from keras_mhe.census import census
from keras_mhe.choosing import Where, check_model, chosen
from keras_mhe.kernels import Kernel
from keras_mhe.obstacles import extents_of, obstacle, why_apart
from keras_mhe.outputs import output_layers
from keras_mhe.potentials import check_flag, check_potential, potential_for
from keras_mhe.printing import printed, short_name
from keras_mhe.reference import lower_bound, position, uniform_energy
from keras_mhe.sites import other_weights, sites_of


class Standing(NamedTuple):
    """Where the neurons of one kernel stand. A row of a `Report`.

    Attributes:
        layer: name of the layer, after those of the models that it is in.
        kernel: which of the layer's weights it is.
        role: `"hidden"` or `"output"`.
        groups, dimension, neurons: groups of neurons that do not meet, coordinates of a neuron,
            neurons in a group.
        half_space: whether the mirror image of a neuron counts as that neuron.
        energy: the mean energy of a pair, as `hyperspherical_energy` gives it; NaN where a neuron
            is not finite.
        bound: an energy that no set of neurons goes below; None where none is known.
        uniform: the energy to expect of random neurons.
        position: 0 where the energy is the bound, 1 where it is that of random neurons; None where
            there is no bound, no energy or no neuron with a direction. A zero neuron counts as
            orthogonal to all others, as in training: many of them lower it.
        smallest, mean, largest: of the angles between a neuron and its nearest, in degrees; None
            where none has a direction.
        zero, duplicate, non_finite: how many neurons have norm zero; repeat an earlier one to a
            tenth of a degree; have an entry that is not a finite number.
        nearest: array of the angles themselves, in the order of the neurons; NaN where a neuron
            has no direction.
    """

    layer: str
    kernel: str
    role: str
    groups: int
    dimension: int
    neurons: int
    half_space: bool
    energy: float
    bound: float | None
    uniform: float
    position: float | None
    smallest: float | None
    mean: float | None
    largest: float | None
    zero: int
    duplicate: int
    non_finite: int
    nearest: np.ndarray

    @property
    def name(self) -> str:
        """The layer, and the weight where it is not the one that everybody expects."""
        return short_name(self.layer, self.kernel)

    @property
    def faults(self) -> str:
        """What is wrong with neurons, in words; empty for nothing."""
        counts = {"zero": self.zero, "duplicate": self.duplicate, "not finite": self.non_finite}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the array of all angles, and None for what is not a number."""
        row = {"name": self.name, **self._asdict()}
        del row["nearest"]
        if math.isnan(row["energy"]):
            row["energy"] = None
        return row


class Report:
    """Where the energy of every kernel of a model stands; prints as a table.

    Attributes:
        rows: list of `Standing`, one for each kernel.
        left_out: reasons, by the names of the weights that were left out.
        s, distance: of the energy.
        note: what else to know; empty for nothing.
    """

    def __init__(
        self,
        rows: list[Standing],
        left_out: dict[str, str],
        s: float,
        distance: str,
        note: str = "",
    ) -> None:
        self.rows, self.left_out, self.s, self.distance = rows, left_out, s, distance
        self.note = note

    @property
    def summary(self) -> dict[str, float]:
        """The headline numbers: what `EnergyMonitor` puts into `logs`.

        `energy_position`, the mean position of the kernels; `worst_energy_position`, the largest;
        `smallest_angle` in degrees between any two neurons of a kernel; `faulty_neurons`, how many
        are zero, duplicate or not finite. NaN where no kernel has such a number.
        """
        positions = [row.position for row in self.rows if row.position is not None]
        angles = [row.smallest for row in self.rows if row.smallest is not None]
        faulty = sum(row.zero + row.duplicate + row.non_finite for row in self.rows)
        return {
            "energy_position": float(np.mean(positions)) if positions else math.nan,
            "worst_energy_position": max(positions, default=math.nan),
            "smallest_angle": min(angles, default=math.nan),
            "faulty_neurons": float(faulty),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays of angles, as JSON has it: None for what is not a number."""
        summary = {k: None if math.isnan(v) else v for k, v in self.summary.items()}
        return {
            "s": self.s,
            "distance": self.distance,
            "summary": summary,
            "rows": [row.to_dict() for row in self.rows],
            "left_out": self.left_out,
            "note": self.note,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """The same as JSON text, also written to a file if a path is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_pandas(self) -> Any:
        """The rows as a DataFrame.

        Raises:
            ModuleNotFoundError: without pandas.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`to_pandas` needs pandas. Install it with: pip install pandas"
            ) from error
        return pd.DataFrame([row.to_dict() for row in self.rows])

    @property
    def title(self) -> str:
        """What the numbers mean, in a few sentences."""
        kind = "angular energies" if self.distance == "angular" else "energies"
        unknown = any(row.bound is None for row in self.rows)
        return (
            f"Where {kind} (s = {self.s:g}) stand: position 0 is the least possible, 1 that of "
            "random neurons, above 1 they cluster."
            + (" A dash: no least energy is known." if unknown else "")
            + (f" {self.note}" if self.note else "")
        )

    @property
    def _remarks(self) -> list[str]:
        """Sentences on what is wrong, and on what was left out, with the names of a few weights."""
        sentences = [f"! {row.name}: {row.faults}." for row in self.rows if row.faults]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            named, others = names[:4], len(names[4:])
            more = f" and {others} more" if others else ""
            sentences.append(f"Left out, {reason}: {', '.join(named)}{more}.")
        return sentences

    def __repr__(self) -> str:
        def degrees(angle: float | None) -> str:
            return "-" if angle is None else f"{angle:.1f}"

        columns: dict[str, list[str]] = {
            "kernel": [row.name for row in self.rows],
            "": [
                ("hs" if row.half_space else "fs") + ("!" if row.faults else "")
                for row in self.rows
            ],
            "neurons": [
                f"{row.groups} * {row.neurons}" if row.groups > 1 else str(row.neurons)
                for row in self.rows
            ],
            "of": [str(row.dimension) for row in self.rows],
            "energy": [f"{row.energy:.4g}" for row in self.rows],
            "position": [
                "-" if row.position is None else f"{row.position:.3f}" for row in self.rows
            ],
            "least°": [degrees(row.smallest) for row in self.rows],
            "mean°": [degrees(row.mean) for row in self.rows],
            "most°": [degrees(row.largest) for row in self.rows],
        }
        numbers = ("neurons", "of", "energy", "position", "least°", "mean°", "most°")
        title = (
            f"{self.title} Degrees: from a neuron to its nearest, in half space (hs) or full space "
            "(fs)."
        )
        return printed(title, columns, numbers, *self._remarks)


def _reason(kernel: Kernel, asked: bool) -> str | None:
    """Why a kernel is left out; None where it is not."""
    if kernel.shape is None:
        return "not built yet"
    reason = obstacle(kernel, asked=asked)
    if reason is None:
        try:
            extents_of(kernel.shape, kernel.neuron_axis, kernel.groups)
        except ValueError as error:
            return str(error)
    return reason


def _standing(
    kernel: Kernel,
    path: str,
    name: str,
    role: str,
    half_space: bool,
    options: dict[str, Any],
) -> Standing:
    array = neuron_array(kernel.variable, kernel.neuron_axis, kernel.groups)
    groups, d, n = array.shape
    options = {**options, "half_space": half_space}
    found = census(array, potential_for(n, d, **options))
    angles = found.nearest[np.isfinite(found.nearest)]
    known, finite = len(angles) > 0, not math.isnan(found.energy)
    return Standing(
        layer=path,
        kernel=name,
        role=role,
        groups=groups,
        dimension=d,
        neurons=n,
        half_space=half_space,
        energy=found.energy,
        bound=lower_bound(n, d, **options),
        uniform=uniform_energy(n, d, **options),
        # Nothing but zeros would have the least energy there is.
        position=position(found.energy, n, d, **options) if known and finite else None,
        smallest=float(np.min(angles)) if known else None,
        mean=float(np.mean(angles)) if known else None,
        largest=float(np.max(angles)) if known else None,
        zero=found.zero,
        duplicate=found.duplicate,
        non_finite=found.non_finite,
        nearest=found.nearest,
    )


def energy_report(
    model: keras.Model,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool | None = None,
    softening: float | str = "auto",
    where: Where = None,
) -> Report:
    """Says of every kernel of a model where its energy stands, and what is wrong with it.

    `position = (energy - bound) / (uniform - bound)`: 0 is the least energy that so many neurons
    of so many coordinates can have, 1 that of random ones, above 1 they cluster; see
    `keras_mhe.reference`. Beside it the angles between neurons and their nearest, and how many
    are zero, duplicate or not finite. Nothing is changed, and the model needs no regularizer.

    Computed on the host in float64, all pairs of neurons exactly, in memory proportional to the
    kernel.

    Args:
        model: a built `keras.Model`.
        s, distance, softening: as in `hyperspherical_energy`.
        half_space: whether the mirror image of a neuron counts as that neuron. None is as
            `regularize` does: in hidden layers, not in those that outputs come from.
        where: which layers: a function from a layer to True or False, or names of layers. None
            is all. Axes and groups of neurons are those of each layer, as in `regularize`;
            filters of DepthwiseConv are measured only if asked for.

    Returns:
        A `Report`, which prints as a table. `rows` holds its lines as named tuples; `to_dict`,
        `to_json` and `to_pandas` convert it.

    Raises:
        TypeError, ValueError: for a model that is not built or has no kernel to report, for an
            argument of the wrong type or out of range.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Example:

    >>> import keras
    >>> from keras_mhe import energy_report
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> model.layers[0].set_weights([keras.ops.eye(64, 32), keras.ops.zeros(32)])
    >>> report = energy_report(model, half_space=True)
    >>> report.rows[0].position, report.rows[0].smallest
    (0.0, 90.0)
    """
    check_model(model)
    s, distance, _, softening = check_potential(s, distance, False, softening)
    if half_space is not None:
        half_space = check_flag(half_space, "half_space")
    options = {"s": s, "distance": distance, "softening": softening}
    sites = sites_of(model)
    asked_for = chosen(where, sites)
    outputs, unknown = output_layers(model)
    rows, left_out = [], {}
    repeats: Counter[str] = Counter()
    for site in filter(asked_for, sites):
        kernel, path, label = site.kernel, site.path, f"{site.path}/{site.name}"
        # Names of layers need not differ in models that say in Python what they do.
        if repeats[label]:
            path = f"{path}_{repeats[label]}"
        repeats[label] += 1
        label = f"{path}/{site.name}"
        reason = _reason(kernel, asked=where is not None)
        if reason is not None:
            left_out[label] = reason
            continue
        role = "output" if site.belongs_to(outputs) else "hidden"
        half = role == "hidden" if half_space is None else half_space
        rows.append(_standing(kernel, path, site.name, role, half, options))
    if where is None:
        for path, weight in other_weights(model, sites):
            left_out[f"{path}/{weight.name}"] = why_apart(weight.name)
    if not rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(
            f"The model has no kernel to report ({reasons or 'it has none'}). "
            f"Received: model={model!r}"
        )
    note = f"Not known which layers give the output of {unknown}." if unknown else ""
    return Report(rows, left_out, s, distance, note)
