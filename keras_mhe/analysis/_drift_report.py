"""The report of what changed between two models, as a table, dict, JSON or DataFrame."""

import math
from typing import Any, NamedTuple

import numpy as np

from keras_mhe._text_tables import format_table, names_by_reason, short_name
from keras_mhe.analysis._report import KernelReport, Report, number_text, space_cell

# Numbers of a kernel whose change is computed, and numbers that are only listed.
_COMPARED = ("energy", "position", "nearest_angle_min", "nearest_angle_mean", "nearest_angle_max")
_COUNTED = ("zero", "duplicate", "non_finite")


def _pair_text(before: float | None, after: float | None, digits: int) -> str:
    return f"{number_text(before, digits)} → {number_text(after, digits)}"


class KernelChange(NamedTuple):
    """The change of one kernel. A row of the changes of a `DriftReport`.

    Attributes:
        before: the `KernelReport` before the change, in the same space as `after`.
        after: the `KernelReport` after the change.
        turns: array of shape `(groups * neurons,)` with the angle between the directions of each
            neuron before and after, in degrees, from 0 to 180. In half space too, a neuron that
            becomes its mirror image has turned by 180 degrees: its energy stays the same, but its
            output changes sign. NaN for a neuron that is zero or not finite before or after. None
            if the comparison was with a `Report`, which holds no neurons.
    """

    before: KernelReport
    after: KernelReport
    turns: np.ndarray | None

    @property
    def name(self) -> str:
        """The name of the kernel after the change."""
        return self.after.name

    @property
    def finite_turns(self) -> np.ndarray:
        """The turns of the neurons that have a direction before and after."""
        return np.empty(0) if self.turns is None else self.turns[np.isfinite(self.turns)]

    @property
    def turned_mean(self) -> float | None:
        """Mean of the turns in degrees; None if no neuron has a turn."""
        return float(np.mean(self.finite_turns)) if len(self.finite_turns) else None

    @property
    def turned_max(self) -> float | None:
        """Largest of the turns in degrees; None if no neuron has a turn."""
        return float(np.max(self.finite_turns)) if len(self.finite_turns) else None

    def change(self, value: str) -> float | None:
        """`after - before` of a number; None if one of both is unknown.

        Args:
            value: `"energy"`, `"position"`, `"nearest_angle_min"`, `"nearest_angle_mean"` or
                `"nearest_angle_max"`.
        """
        if value not in _COMPARED:
            raise ValueError(
                f"Invalid value for argument `value`. Expected one of {list(_COMPARED)}. "
                f"Received: value={value!r}"
            )
        before, after = getattr(self.before, value), getattr(self.after, value)
        if before is None or after is None or math.isnan(after - before):
            return None
        return float(after - before)

    def to_dict(self) -> dict[str, Any]:
        """All numbers without the arrays, before, after and their change; None in place of NaN."""
        before, after = self.before.to_dict(), self.after.to_dict()
        row = {k: v for k, v in after.items() if k not in _COMPARED + _COUNTED}
        row["name_before"] = before["name"]
        for name in _COMPARED + _COUNTED:
            row |= {f"{name}_before": before[name], f"{name}_after": after[name]}
            if name in _COMPARED:
                row[f"{name}_change"] = self.change(name)
        undirected = None if self.turns is None else len(self.turns) - len(self.finite_turns)
        return row | {
            "turned_mean": self.turned_mean,
            "turned_max": self.turned_max,
            "undirected": undirected,
        }


class DriftReport(Report):
    """The report of a model, and how its neurons differ from those of an earlier model.

    Prints as a table of the changes. `summary` has three more numbers: `position_change`, the mean
    over the kernels whose positions are known, and `turned_mean` and `turned_max`, the mean of the
    mean turns of the kernels and the largest turn, in degrees. `to_pandas` has a row for each
    change.

    Attributes:
        rows: list of `KernelReport`, one for each kernel of the model, as in `Report`.
        changes: list of `KernelChange`, one for each kernel that both models have.
        unmatched: dict of the kernels that were not compared: the reason for each name.
        left_out: dict of the weights that were left out of `rows`: the reason for each name.
        note: a further remark, or "". It says so if kernels were matched by their order.
    """

    def __init__(
        self, after: Report, changes: list[KernelChange], unmatched: dict[str, str], note: str = ""
    ) -> None:
        note = " ".join(filter(None, [after.note, note]))
        super().__init__(after.rows, after.left_out, note)
        self.changes, self.unmatched = changes, unmatched

    @property
    def summary(self) -> dict[str, float]:
        """The numbers of `Report.summary`, and the changes."""
        moves = [c for each in self.changes if (c := each.change("position")) is not None]
        means = [m for each in self.changes if (m := each.turned_mean) is not None]
        turns = [m for each in self.changes if (m := each.turned_max) is not None]
        return super().summary | {
            "position_change": float(np.mean(moves)) if moves else math.nan,
            "turned_mean": float(np.mean(means)) if means else math.nan,
            "turned_max": max(turns, default=math.nan),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything except the arrays, as JSON can store it: None in place of NaN."""
        changes = [each.to_dict() for each in self.changes]
        return super().to_dict() | {"changes": changes, "unmatched": self.unmatched}

    @property
    def _frame_rows(self) -> list[dict[str, Any]]:
        return [each.to_dict() for each in self.changes]

    @property
    def _meaning(self) -> str:
        unknown = all(each.turns is None for each in self.changes)
        return (
            "Before → after. Nearest angle: from a neuron to the nearest other one. Turned: the "
            "angle between the directions of a neuron before and after."
            + (" It is unknown, because a report holds no neurons." if unknown else "")
        )

    @property
    def remarks(self) -> list[str]:
        """Sentences on faults before and after, and on kernels that were not compared."""
        faults = [
            f"! {each.before.name} before: {each.before.faults}."
            for each in self.changes
            if each.before.faults
        ]
        reasons = [
            (short_name("", name), f"Not compared, {reason}")
            for name, reason in self.unmatched.items()
        ]
        return faults + super().remarks + names_by_reason(reasons)

    def __repr__(self) -> str:
        def pairs(value: str, digits: int) -> list[str]:
            return [
                _pair_text(getattr(each.before, value), getattr(each.after, value), digits)
                for each in self.changes
            ]

        def faulty(each: KernelChange) -> bool:
            return bool(each.before.faults or each.after.faults)

        columns = {
            "kernel": [each.name for each in self.changes],
            "space": [space_cell(each.after, faulty=faulty(each)) for each in self.changes],
            "neurons": [each.after.counts for each in self.changes],
            "nearest\nangle min°": pairs("nearest_angle_min", 1),
            "position": pairs("position", 2),
            "turned\nmean°": [number_text(each.turned_mean, 1) for each in self.changes],
            "turned\nmax°": [number_text(each.turned_max, 1) for each in self.changes],
        }
        return format_table(self._title_of_table, columns, list(columns)[2:], *self.remarks)
