"""The report of a model, as a table, dict, JSON or DataFrame."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_mhe._text_tables import format_table, names_by_reason, short_name


def number_text(value: float | None, digits: int) -> str:
    """A number in a table; a dash if there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


class KernelReport(NamedTuple):
    """The report on one kernel. A row of a `Report`.

    Attributes:
        layer: name of the layer, after the names of the models that contain it.
        kernel: name of the weight within its layer.
        role: `"hidden"` or `"output"`.
        regularizer: class of the kernel's own energy, which determined the neurons, the space and
            the potential. None if the kernel has none, so that its role and layer determined them.
        half_space: whether the mirror image of a neuron counts as that neuron.
        s: power of the potential; None for a Gaussian.
        distance: the distance in the potential, `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian; None for other potentials.
        softening: the softening of the potential, as in `energy_report`.
        groups: number of groups of neurons that do not compete with each other.
        neurons: neurons in a group.
        dimension: coordinates of a neuron.
        nearest_angle_min: smallest of the angles between a neuron and the nearest other one, in
            degrees; None if no neuron has a direction.
        nearest_angle_mean: mean of these angles in degrees, or None.
        nearest_angle_max: largest of these angles in degrees, or None.
        uniform_nearest_angle: the expected mean of these angles for random neurons.
        position: 0 if the energy is the lower bound, 1 if it is that of random neurons. None if
            there is no bound, no energy or no neuron with a direction. A zero neuron counts as
            orthogonal to all others, as in training: many of them lower the position.
        energy: the mean energy of a pair, as in `hyperspherical_energy`; NaN if a neuron is not
            finite.
        lower_bound: a lower bound of the energy of any set of neurons; None if no bound is known.
        uniform_energy: the expected energy of random neurons.
        zero: number of neurons of norm zero.
        duplicate: number of neurons within a tenth of a degree of an earlier one.
        non_finite: number of neurons with an entry that is not finite.
        note: a remark, or "". It says so if the kernel's energy acts on other neurons than those of
            its layer, or is not in the loss.
        nearest_angles: array of the angles in degrees, of shape `(groups * neurons,)`, in the order
            of the neurons; NaN for a neuron without a direction.
    """

    layer: str
    kernel: str
    role: str
    regularizer: str | None
    half_space: bool
    s: float | None
    distance: str
    t: float | None
    softening: float | str
    groups: int
    neurons: int
    dimension: int
    nearest_angle_min: float | None
    nearest_angle_mean: float | None
    nearest_angle_max: float | None
    uniform_nearest_angle: float
    position: float | None
    energy: float
    lower_bound: float | None
    uniform_energy: float
    zero: int
    duplicate: int
    non_finite: int
    note: str
    nearest_angles: np.ndarray

    @property
    def name(self) -> str:
        """The name of the layer, with that of the weight unless it is `kernel` or `embeddings`."""
        return short_name(self.layer, self.kernel)

    @property
    def faults(self) -> str:
        """The numbers of faulty neurons in words; empty if there are none."""
        counts = {"zero": self.zero, "duplicate": self.duplicate, "not finite": self.non_finite}
        return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)

    @property
    def counts(self) -> str:
        """The number of neurons, after the number of groups if there are several."""
        return f"{self.groups} * {self.neurons}" if self.groups > 1 else str(self.neurons)

    @property
    def space(self) -> str:
        """`"half"` or `"full"` space."""
        return "half" if self.half_space else "full"

    @property
    def potential(self) -> str:
        """The potential in words."""
        if self.t is not None:
            return f"Gaussian, t = {self.t:g}"
        return f"s = {self.s:g}" + (", angular" if self.distance == "angular" else "")

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the array of all angles; None in place of NaN."""
        row = {"name": self.name, **self._asdict()}
        del row["nearest_angles"]
        if math.isnan(row["energy"]):
            row["energy"] = None
        return row


def space_cell(row: KernelReport, *, faulty: bool) -> str:
    """The space of a row in a table, with marks for a regularizer and for faulty neurons."""
    return row.space + "*" * bool(row.regularizer) + "!" * faulty


class Report:
    """The angles, positions and energies of every kernel of a model. Prints as text.

    Attributes:
        rows: list of `KernelReport`, one for each kernel.
        left_out: dict of the weights that were left out: the reason for each name.
        note: a further remark, or "".
    """

    def __init__(self, rows: list[KernelReport], left_out: dict[str, str], note: str = "") -> None:
        self.rows, self.left_out, self.note = rows, left_out, note

    @property
    def summary(self) -> dict[str, float]:
        """The main numbers, which `EnergyMonitor` also adds to `logs`.

        `position_mean`: mean position of the kernels that have one. `position_max`: the largest
        position. `nearest_angle_min`: the smallest angle in degrees between two neurons of a
        kernel. `faulty_neurons`: number of neurons that are zero, duplicate or not finite. A
        number is NaN if no kernel has it.
        """
        positions = [row.position for row in self.rows if row.position is not None]
        angles = [row.nearest_angle_min for row in self.rows if row.nearest_angle_min is not None]
        faulty = sum(row.zero + row.duplicate + row.non_finite for row in self.rows)
        return {
            "position_mean": float(np.mean(positions)) if positions else math.nan,
            "position_max": max(positions, default=math.nan),
            "nearest_angle_min": min(angles, default=math.nan),
            "faulty_neurons": float(faulty),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything except the arrays of angles, as JSON can store it: None in place of NaN."""
        summary = {k: None if math.isnan(v) else v for k, v in self.summary.items()}
        return {
            "summary": summary,
            "rows": [row.to_dict() for row in self.rows],
            "left_out": self.left_out,
            "note": self.note,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """The content of `to_dict` as JSON text. Also writes it to a file if `path` is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_pandas(self) -> Any:
        """The rows as a DataFrame.

        Raises:
            ModuleNotFoundError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "`to_pandas` needs pandas. Install it with: pip install pandas"
            ) from error
        return pd.DataFrame(self._frame_rows)

    @property
    def _frame_rows(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self.rows]

    @property
    def _meaning(self) -> str:
        """The meaning of the columns of angles."""
        return (
            "Nearest angle: from a neuron to the nearest other one. Uniform: the mean nearest "
            "angle of random neurons."
        )

    @property
    def title(self) -> str:
        """The meaning of the numbers, in a few sentences."""
        potentials = {row.potential for row in self.rows}
        kind = f" ({min(potentials)})" if len(potentials) == 1 else ""
        sentences = [
            self._meaning,
            f"Position of the energy{kind}: 0 is the best possible, 1 is random, above 1 the "
            "neurons are clustered.",
        ]
        if any(row.half_space for row in self.rows):
            sentences.append("In half space, a neuron and its negative count as one.")
        if any(row.position is None for row in self.rows):
            sentences.append("A dash: no neuron has a direction, or no lower bound is known.")
        return " ".join([*sentences, *filter(None, [self.note])])

    @property
    def _title_of_table(self) -> str:
        if not any(row.regularizer for row in self.rows):
            return self.title
        return f"{self.title} A star: measured as the regularizer of the kernel says."

    @property
    def remarks(self) -> list[str]:
        """Sentences on faulty neurons, other remarks, and weights that were left out."""
        faults = [f"! {row.name}: {row.faults}." for row in self.rows if row.faults]
        notes = [f"! {row.name}: {row.note}." for row in self.rows if row.note]
        reasons = [
            (short_name("", name), f"Left out, {reason}") for name, reason in self.left_out.items()
        ]
        potentials = [(row.name, f"Energies with {row.potential}") for row in self.rows]
        if len({row.potential for row in self.rows}) > 1:
            reasons = potentials + reasons
        return faults + notes + names_by_reason(reasons)

    def __repr__(self) -> str:
        numbers: dict[str, list[str]] = {
            "neurons *\ndimension": [f"{row.counts} * {row.dimension}" for row in self.rows],
            "nearest\nmin°": [number_text(row.nearest_angle_min, 1) for row in self.rows],
            "angle\nmean°": [number_text(row.nearest_angle_mean, 1) for row in self.rows],
            "uniform": [f"{row.uniform_nearest_angle:.1f}" for row in self.rows],
            "position": [number_text(row.position, 3) for row in self.rows],
            "energy": [f"{row.energy:#.4g}" for row in self.rows],
        }
        columns = {
            "kernel": [row.name for row in self.rows],
            "space": [space_cell(row, faulty=bool(row.faults)) for row in self.rows],
            **numbers,
        }
        return format_table(self._title_of_table, columns, list(numbers), *self.remarks)
