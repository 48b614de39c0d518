"""What was done to each kernel of a model."""

from typing import NamedTuple

import keras

from keras_mhe.printing import printed, short_name


class Row(NamedTuple):
    """What was done to one kernel.

    Attributes:
        layer: name of the layer, after those of the models that it is in.
        kernel: which of the layer's weights it is.
        shape: its shape; None before it is built.
        groups: how many groups of neurons do not meet; None for what is skipped or not built.
        dimension: coordinates of a neuron; None as for `groups`.
        neurons: neurons in a group; None as for `groups`.
        role: `"hidden"`, `"output"`, `"skipped"`, or `"removed"` by `unregularize`.
        regularizer: what the kernel is regularized by now, all in all; None for nothing.
        saved: whether a saved model brings it back.
        note: why it was skipped, or what else to know.
    """

    layer: str
    kernel: str
    shape: tuple[int, ...] | None
    groups: int | None = None
    dimension: int | None = None
    neurons: int | None = None
    role: str = "skipped"
    regularizer: keras.Regularizer | None = None
    saved: bool = False
    note: str = ""


class Table:
    """A model and what was done to each of its kernels; prints as a table.

    Attributes:
        model: the model to train and to save.
        rows: list of `Row`, one for each kernel.
        title: what was done, in a few sentences.
    """

    def __init__(self, model: keras.Model, rows: list[Row], title: str) -> None:
        self.model, self.rows, self.title = model, rows, title

    def __repr__(self) -> str:
        names = ("kernel", "shape", "neurons", "dimension", "as", "note")
        columns: dict[str, list[str]] = {name: [] for name in names}
        for row in self.rows:
            groups = f"{row.groups} * " if row.groups not in (None, 1) else ""
            columns["kernel"].append(short_name(row.layer, row.kernel))
            columns["shape"].append("" if row.shape is None else str(row.shape))
            columns["neurons"].append("" if row.neurons is None else f"{groups}{row.neurons}")
            columns["dimension"].append("" if row.dimension is None else str(row.dimension))
            columns["as"].append(row.role)
            columns["note"].append(row.note)
        return printed(self.title, columns, numbers=("neurons", "dimension"))
