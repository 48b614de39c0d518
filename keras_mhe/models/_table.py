"""The table that `regularize` and `unregularize` return."""

from typing import NamedTuple

import keras

from keras_mhe._text_tables import format_table, names_by_reason, short_name
from keras_mhe._typing import Shape


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


class Table:
    """A model and what was done to each of its kernels. Prints as text.

    Attributes:
        model: the model to train and to save.
        rows: list of `Row`, one for each kernel.
        title: what was done, in a few sentences.
    """

    def __init__(self, model: keras.Model, rows: list[Row], title: str) -> None:
        self.model, self.rows, self.title = model, rows, title

    def __repr__(self) -> str:
        names = ("kernel", "shape", "neurons", "dimension", "role", "action")
        columns: dict[str, list[str]] = {name: [] for name in names}
        for row in self.rows:
            groups = f"{row.groups} * " if row.groups not in (None, 1) else ""
            columns["kernel"].append(short_name(row.layer, row.kernel))
            columns["shape"].append("" if row.shape is None else str(row.shape))
            columns["neurons"].append("" if row.neurons is None else f"{groups}{row.neurons}")
            columns["dimension"].append("" if row.dimension is None else str(row.dimension))
            columns["role"].append(row.role or "")
            columns["action"].append(row.action)
        notes = [
            (short_name(row.layer, row.kernel), f"{row.action.capitalize()}, {row.note}")
            for row in self.rows
            if row.note
        ]
        numbers = ("neurons", "dimension")
        return format_table(self.title, columns, numbers, *names_by_reason(notes))
