"""What training does to energies."""

import itertools
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More kernels than these are told apart by their depth, not each by a colour of its own.
_NAMED = 10
# Positions beyond this are drawn by their logarithms, or those below 1 could not be told apart.
_FAR = 4
_MARKS = [0, 0.5, 1, *(digit * 10**power for power in range(9) for digit in (2, 5, 10))]


def energies_over_training(
    history: Any, value: str = "position", *, ax: "Axes | None" = None
) -> "Axes":
    """Draws a number of every kernel against training steps.

    Args:
        history: an `EnergyMonitor`, or its `history`.
        value: which number: `"position"`, `"energy"`, or one of the angles `"smallest"`, `"mean"`
            and `"largest"`.
        ax: a matplotlib Axes; a new one by default.

    Returns:
        The Axes; angles in degrees, positions and energies without unit.

    Raises:
        ValueError: for a value that records do not have, and where nothing was recorded.

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
        "smallest": "smallest angle to the nearest, degrees",
        "mean": "mean angle to the nearest, degrees",
        "largest": "largest angle to the nearest, degrees",
    }
    if value not in labels:
        raise ValueError(
            f"Invalid value for argument `value`. Expected one of {list(labels)}. "
            f"Received: value={value!r}"
        )
    records = getattr(history, "history", history)
    if not records:
        raise ValueError(f"Nothing was recorded. Received: history={records!r}")
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
        if top > _FAR:
            ax.set_yscale("symlog", linthresh=1)
            # Room that others have taken who share the axis stays.
            end = max(1.3 * top, ax.get_ylim()[1])
            ax.set_ylim(-0.1, end)
            marks = [mark for mark in _MARKS if mark <= end]
            ax.set_yticks(marks, [f"{mark:g}" for mark in marks])
    named = len(lines) <= _NAMED
    styles = itertools.cycle(["-", "--", "-.", ":"])
    depths = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(lines)))
    colours = mpl.color_sequences["petroff10"] if named else depths
    for (name, line), colour, style in zip(lines.items(), colours, styles, strict=False):
        ax.plot(*line, style if named else "-", color=colour, label=name)
    if named:
        for text in ax.legend(fontsize=8).get_texts():
            text.set_parse_math(False)
    else:
        mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, len(lines)), "viridis")
        ax.figure.colorbar(mappable, ax=ax, label="kernel, by depth")
    ax.set(xlabel="training step", ylabel=labels[value])
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator("auto", integer=True))
    ax.grid(alpha=0.3)
    return ax
