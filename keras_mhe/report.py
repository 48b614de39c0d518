"""What a report of a model says of each kernel, as a table, dict, JSON or DataFrame."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_mhe.printing import printed, short_name


class Standing(NamedTuple):
    """Where the neurons of one kernel stand. A row of a `Report`.

    Attributes:
        layer: name of the layer, after those of the models that it is in.
        kernel: which of the layer's weights it is.
        role: `"hidden"` or `"output"`.
        groups: how many groups of neurons do not meet.
        dimension: coordinates of a neuron.
        neurons: neurons in a group.
        half_space: whether the mirror image of a neuron counts as that neuron.
        energy: the mean energy of a pair, as `hyperspherical_energy` gives it; NaN where a neuron
            is not finite.
        bound: an energy that no set of neurons goes below; None where none is known.
        uniform: the energy to expect of random neurons.
        position: 0 where the energy is the bound, 1 where it is that of random neurons; None where
            there is no bound, no energy or no neuron with a direction. A zero neuron counts as
            orthogonal to all others, as in training: many of them lower it.
        smallest: smallest of the angles between a neuron and its nearest, in degrees; None where no
            neuron has a direction.
        mean: mean of these angles, in degrees, or None.
        largest: largest of these angles, in degrees, or None.
        zero: how many neurons have norm zero.
        duplicate: how many repeat an earlier one to a tenth of a degree.
        non_finite: how many have an entry that is not a finite number.
        nearest: array of the angles themselves in degrees, of shape `(groups * neurons,)`, in the
            order of the neurons; NaN where a neuron has no direction.
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
        s: power of the energy's potential.
        distance: `"euclidean"` or `"angular"`, the distance in it.
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

        `energy_position`, the mean position of the kernels that have one; `worst_energy_position`,
        the largest; `smallest_angle` in degrees between any two neurons of a kernel;
        `faulty_neurons`, how many are zero, duplicate or not finite. NaN where no kernel has such a
        number.
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
        sentences = [
            f"Where {kind} (s = {self.s:g}) stand: position 0 is the least possible, 1 that of "
            "random neurons, above 1 they cluster."
        ]
        if any(row.position is None for row in self.rows):
            sentences.append("A dash: neurons have no direction, or no least energy is known.")
        return " ".join([*sentences, *filter(None, [self.note])])

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
