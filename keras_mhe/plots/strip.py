"""A whole model at a glance."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.plots._names import shortened
from keras_mhe.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Longer names would take the height from the colours.
_LETTERS = 28


def _shade(positions: Any) -> np.ndarray:
    """What is shown by colour: -1 at best, 0 for random; beyond, where there is no end, logarithms.

    Trained layers may stand at 2 as well as at 50.
    """
    positions = np.asarray(positions, "float64")
    return np.where(positions > 1, np.log2(np.maximum(positions, 1)), positions - 1)


def _scale(report: Report) -> tuple[np.ndarray, float, mpl.cm.ScalarMappable]:
    """The positions of a report, the largest that is shown, and their colours."""
    positions = np.array([np.nan if r.position is None else r.position for r in report.rows])
    top = max(2.0, float(np.nanmax(positions, initial=0.0)))
    norm = mpl.colors.TwoSlopeNorm(0.0, -1.0, float(_shade(top)))
    colours = mpl.colormaps["PuOr_r"].with_extremes(bad="0.6")
    return positions, top, mpl.cm.ScalarMappable(norm, colours)


def colours_of_positions(report: Report) -> list[str]:
    """The colour of each kernel in the strip, light enough to write on, as `#rrggbb`."""
    positions, _, mappable = _scale(report)
    # Half of each is white.
    colours = 0.5 + 0.5 * mappable.to_rgba(_shade(positions))[:, :3]
    return [mpl.colors.to_hex(colour) for colour in colours]


def heat_strip(report: Report, *, ax: "Axes | None" = None) -> "Axes":
    """Draws the position of every kernel of a report as a strip of colours, the first on the left.

    `position = (energy - bound) / (uniform - bound)`: violet is better than random, white is
    random, orange is clustered. Grey: no position is known. A cross: some neurons are zero,
    duplicate or not finite.

    Args:
        report: of `energy_report`.
        ax: a matplotlib Axes; a new one by default.

    Returns:
        The Axes.

    Raises:
        TypeError: for what is no report.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.plots import heat_strip
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> ax = heat_strip(energy_report(model))
    """
    if not isinstance(report, Report):
        raise TypeError(
            "Invalid value for argument `report`. Expected that of `energy_report(model)`. "
            f"Received: report={type(report).__name__}"
        )
    positions, top, scale = _scale(report)
    count = len(positions)
    if ax is None:
        size = (max(4.0, 0.2 * count + 1.5), 2.8)
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    ax.imshow(scale.to_rgba(_shade(positions)[None]), aspect="auto")
    faulty = [i for i, row in enumerate(report.rows) if row.faults]
    ax.plot(faulty, np.zeros(len(faulty)), "x", color="black", markersize=5)
    names = [shortened(row.name, _LETTERS) for row in report.rows]
    ax.set_xticks(
        range(count), names, rotation=90, fontsize=9 if count <= 20 else 6, parse_math=False
    )
    ax.set_yticks([])
    title = "position of each kernel: 0 best possible, 1 random"
    if np.isnan(positions).any():
        title += "; grey: not known"
    if faulty:
        title += "; cross: neurons at fault"
    ax.set_title(title, fontsize=9)
    marks = [0, 0.5, 1, *(mark for mark in (2, 5, 10, 100, 1000) if mark <= top)]
    bar = ax.figure.colorbar(scale, ax=ax, pad=0.01)
    bar.set_ticks(_shade(marks).tolist(), labels=[f"{mark:g}" for mark in marks])
    return ax
