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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to this number of kernels, each has its own color and a name in the legend. More kernels have
# colors by their depth.
_MAX_NAMED = 10
# Above this position the axis is logarithmic. Otherwise, positions below 1 would look the same.
_MAX_LINEAR = 4
_MARKS = [0, 0.5, 1, *(digit * 10**power for power in range(9) for digit in (2, 5, 10))]


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
        "nearest_angle_min": "nearest angle (min), degrees",
        "nearest_angle_mean": "nearest angle (mean), degrees",
        "nearest_angle_max": "nearest angle (max), degrees",
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
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for record in records:
        for row in record["rows"]:
            steps, numbers = lines.setdefault(row["name"], ([], []))
            steps.append(record["step"])
            numbers.append(np.nan if row[value] is None else row[value])
    if value == "position":
        ax.axhline(1, color="0.6", linewidth=1, linestyle="--")
        top = max(np.nanmax(numbers, initial=0) for _, numbers in lines.values())
        if top > _MAX_LINEAR:
            ax.set_yscale("symlog", linthresh=1)
            # An axis that other plots share does not shrink.
            end = max(1.3 * top, ax.get_ylim()[1])
            ax.set_ylim(-0.1, end)
            marks = [mark for mark in _MARKS if mark <= end]
            ax.set_yticks(marks, [f"{mark:g}" for mark in marks])
    named = len(lines) <= _MAX_NAMED
    styles = itertools.cycle(["-", "--", "-.", ":"])
    depths = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(lines)))
    colors = mpl.color_sequences["petroff10"] if named else depths
    handles, names = ax.get_legend_handles_labels()
    for (name, line), color, style in zip(lines.items(), colors, styles, strict=False):
        handles += ax.plot(*line, style if named else "-", color=color, label=printable(name))
        names.append(printable(name))
    if named:
        # With explicit labels, since matplotlib omits those that begin with an underscore.
        for text in ax.legend(handles, names, fontsize=8).get_texts():
            text.set_parse_math(False)
    else:
        mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, len(lines)), "viridis")
        ax.figure.colorbar(mappable, ax=ax, label="kernel, by depth")
    ax.set(xlabel="training step", ylabel=labels[value])
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator("auto", integer=True))
    ax.grid(alpha=0.3)
    return ax
