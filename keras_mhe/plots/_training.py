"""Draws energies and angles during training."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from keras_mhe._printable import printable
from keras_mhe.analysis import EnergyMonitor
from keras_mhe.plots._limits import drawn_limits
from keras_mhe.plots._marks import MAX_LINEAR, mark_positions
from keras_mhe.plots._names import shortened
from keras_mhe.plots._texts import add_legend, space_text, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to this number of kernels, each has its own color and a name in the legend. More kernels have
# colors by their depth.
_MAX_NAMED = 10
# Longer names would leave too little room for the lines.
_NAME_LENGTH = 32


def _isolated(numbers: list[float]) -> list[int]:
    """The indices of numbers without a neighbor, which a line does not show."""
    finite = np.pad(np.isfinite(numbers), 1)
    return list(np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:]))


def energies_over_training(
    history: EnergyMonitor | Sequence[dict[str, Any]],
    value: str = "position",
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws one value of every kernel against training steps.

    Args:
        history: an `EnergyMonitor`, or its `history`.
        value: the value to draw: `"position"`, `"energy"`, or one of the angles
            `"nearest_angle_min"`, `"nearest_angle_mean"` and `"nearest_angle_max"`.
        ax: a matplotlib Axes. None means a new one.

    Returns:
        The Axes. Angles are in degrees; positions and energies have no unit.

    Raises:
        ValueError: if `value` is none of these, or if the history is empty.

    Examples:
        >>> import keras, numpy as np
        >>> from keras_mhe import EnergyMonitor
        >>> from keras_mhe.plots import energies_over_training
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> monitor = EnergyMonitor()
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
        >>> ax = energies_over_training(monitor)
    """
    labels = {
        "position": "position: 0 best possible, 1 random",
        "energy": "energy",
        "nearest_angle_min": "smallest nearest angle, degrees",
        "nearest_angle_mean": "mean nearest angle, degrees",
        "nearest_angle_max": "largest nearest angle, degrees",
    }
    if value not in labels:
        raise ValueError(
            f"Invalid value for argument `value`. Expected one of {list(labels)}. "
            f"Received: value={value!r}"
        )
    records = getattr(history, "history", history)
    if not records:
        raise ValueError(f"The history has no records. Received: history={records!r}")
    if ax is None:
        ax = plt.figure(figsize=(6, 4), layout="constrained").add_subplot()
    drawn = drawn_limits(ax, "y")
    lines: dict[str, tuple[list[int], list[float]]] = {}
    spaces: dict[str, bool] = {}
    for record in records:
        for row in record["rows"]:
            steps, numbers = lines.setdefault(row["name"], ([], []))
            steps.append(record["step"])
            numbers.append(np.nan if row[value] is None else row[value])
            if "half_space" in row:
                spaces[row["name"]] = row["half_space"]
    finite = [number for _, numbers in lines.values() for number in numbers if np.isfinite(number)]
    if value == "position":
        ax.axhline(1, color="0.6", linewidth=1, linestyle="--")
        if max(finite, default=0) > MAX_LINEAR:
            ax.set_yscale("symlog", linthresh=1)
            mark_positions(ax.yaxis)
        if ax.get_yscale() == "symlog":
            # A position of 0 is not on the frame.
            low, high = 1.3 * min([0.0, *finite]) - 0.1, 1.3 * max([1.0, *finite])
            ax.set_ylim(min([low, *drawn]), max([high, *drawn]))
    named = len(lines) <= _MAX_NAMED
    styles = itertools.cycle(["-", "--", "-.", ":"])
    depths = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(lines)))
    colors = mpl.color_sequences["petroff10"] if named else depths
    handles, names = ax.get_legend_handles_labels()
    for (name, (steps, numbers)), color, style in zip(lines.items(), colors, styles, strict=False):
        marks = _isolated(numbers)
        handles += ax.plot(
            steps, numbers, style if named else "-", color=color, marker="." if marks else "",
            markevery=marks, label=printable(name),
        )  # fmt: skip
        names.append(shortened(name, _NAME_LENGTH))
        if len(set(spaces.values())) > 1 and name in spaces:
            names[-1] += " (half)" if spaces[name] else " (full)"
    if not finite:
        ax.annotate("unknown", (0.5, 0.6), xycoords="axes fraction", color="0.4", ha="center")
    if named:
        add_legend(ax, handles, names, fontsize=8, framealpha=0.6)
    else:
        mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, len(lines)), "viridis")
        ax.figure.colorbar(mappable, ax=ax, label="kernel, by depth")
    label = "\n".join(filter(None, ["training step", space_text(spaces.values())]))
    ax.set_xlabel(wrapped(ax, label, 9), fontsize=9)
    ax.set_ylabel(labels[value], fontsize=9)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator("auto", integer=True, min_n_ticks=1))
    ax.grid(alpha=0.3)
    return ax
