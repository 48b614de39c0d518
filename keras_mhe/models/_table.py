"""The table that `regularize` and `unregularize` return."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras

from keras_mhe._text_tables import format_table, names_by_reason, short_name
from keras_mhe._typing import Shape

# The note of kernels that `where` did not select. They are only counted in the text of a table.
NOT_SELECTED = "not selected by `where`"
# The most rows of the text of a table. Kernels that are alike share a row if there are more.
_MOST_ROWS = 20


class Row(NamedTuple):
    """What was done to one kernel. A row of a `Table`.

    Attributes:
        layer: name of the layer, after the names of the models that contain it.
        kernel: name of the weight within its layer.
        shape: shape of the weight; None before it is built.
        groups: number of groups of neurons that do not compete with each other; None if the kernel
            was skipped, is not built or got no energy.
        dimension: coordinates of a neuron; None as for `groups`.
        neurons: neurons in a group; None as for `groups`.
        role: `"hidden"` or `"output"`; None for a weight that is no kernel.
        action: `"regularized"`, `"skipped"`, or `"removed"` by `unregularize`.
        regularizer: the complete new regularizer of the kernel, or None.
        saved: whether the regularizer survives saving and loading the model.
        note: the reason why the kernel was skipped, or other remarks.
    """

    layer: str
    kernel: str
    shape: Shape | None
    groups: int | None = None
    dimension: int | None = None
    neurons: int | None = None
    role: str | None = None
    action: str = "skipped"
    regularizer: keras.Regularizer | None = None
    saved: bool = False
    note: str = ""


def _listed(rows: list[Row]) -> list[list[Row]]:
    """The kernels in each row of the text: one, or all that are alike if there are many kernels."""
    rows = [row for row in rows if row.note != NOT_SELECTED]
    if len(rows) > _MOST_ROWS:
        rows = [row for row in rows if row.action != "skipped"]
    if len(rows) <= _MOST_ROWS:
        return [[row] for row in rows]
    alike: dict[Any, list[Row]] = {}
    for row in rows:
        # The sizes of a convolution's window, or nothing for a matrix.
        window = None if row.shape is None else (len(row.shape), row.shape[:-2])
        alike.setdefault((row.kernel, window, row.role, row.action), []).append(row)
    return list(alike.values())


def _name(rows: list[Row]) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return short_name(rows[0].layer, rows[0].kernel) + more


def _shape(rows: list[Row]) -> str:
    """The sizes that all kernels have in common, and an ellipsis for each other one."""
    shapes = [row.shape for row in rows if row.shape is not None]
    sizes = ["…" if len(set(axis)) > 1 else str(axis[0]) for axis in zip(*shapes, strict=True)]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})" if shapes else ""


def _range(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return "-".join(str(value) for value in dict.fromkeys((known[0], known[-1]))) if known else ""


def _neurons(rows: list[Row]) -> str:
    groups = _range(row.groups for row in rows)
    return f"{groups} * " * (groups not in ("", "1")) + _range(row.neurons for row in rows)


class Table:
    """A model and what was done to each of its kernels. Prints as text.

    The text has a row for each kernel that `where` selected. If these are more than 20, it has rows
    only for those that changed. If more than 20 changed, kernels that are alike share a row: those
    of the same role whose windows have the same size. `rows` has all kernels.

    Attributes:
        model: the model to train and to save.
        rows: list of `Row`, one for each kernel.
        title: what was done, in a few sentences.
    """

    def __init__(self, model: keras.Model, rows: list[Row], title: str) -> None:
        self.model, self.rows, self.title = model, rows, title

    def __repr__(self) -> str:
        listed = _listed(self.rows)
        columns = {
            "kernel": list(map(_name, listed)),
            "shape": list(map(_shape, listed)),
            "neurons": list(map(_neurons, listed)),
            "dimension": [_range(row.dimension for row in rows) for rows in listed],
            "role": [rows[0].role or "" for rows in listed],
            "action": [rows[0].action for rows in listed],
        }
        if len(set(columns["action"])) == 1:
            # The title says it, or the notes.
            del columns["action"]
        notes = names_by_reason(
            [
                (short_name(row.layer, row.kernel), f"{row.action.capitalize()}, {row.note}")
                for row in self.rows
                if row.note not in ("", NOT_SELECTED)
            ]
        )
        not_selected = sum(row.note == NOT_SELECTED for row in self.rows)
        if not_selected:
            notes.append(f"Skipped, {NOT_SELECTED}: {not_selected} kernels.")
        if sum(map(len, listed)) > len(listed):
            notes.append("Kernels that are alike share a row; `.rows` has a row for each kernel.")
        return format_table(self.title, columns, ("neurons", "dimension"), *notes)
