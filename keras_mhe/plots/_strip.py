"""Draws the positions of all kernels of a model as colors."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.analysis import Report
from keras_mhe.plots._names import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Longer names would leave too little height for the colors.
_NAME_LENGTH = 28


def _shade(positions: Any) -> np.ndarray:
    """The value that the color shows: `position - 1`, and above position 1 its logarithm.

    It is -1 for the best possible position and 0 for a random one. Positions above 1 have no upper
    limit: trained layers can be at 2 or at 50.
    """
    positions = np.asarray(positions, "float64")
    return np.where(positions > 1, np.log2(np.maximum(positions, 1)), positions - 1)


def _scale(report: Report) -> tuple[np.ndarray, float, mpl.cm.ScalarMappable]:
    """The positions of a report, the largest position of the scale, and the scale of colors."""
    positions = np.array([np.nan if r.position is None else r.position for r in report.rows])
    top = max(2.0, float(np.nanmax(positions, initial=0.0)))
    norm = mpl.colors.TwoSlopeNorm(0.0, -1.0, float(_shade(top)))
    colors = mpl.colormaps["PuOr_r"].with_extremes(bad="0.6")
    return positions, top, mpl.cm.ScalarMappable(norm, colors)


def colors_of_positions(report: Report) -> list[str]:
    """The color of each kernel in the strip as `#rrggbb`, lighter, as a background of text."""
    positions, _, mappable = _scale(report)
    # A mixture with white in equal parts.
    colors = 0.5 + 0.5 * mappable.to_rgba(_shade(positions))[:, :3]
    return [mpl.colors.to_hex(color) for color in colors]


def heat_strip(report: Report, *, ax: "Axes | None" = None) -> "Axes":
    """Draws the position of every kernel of a report as a strip of colors.

    `position = (energy - lower_bound) / (uniform_energy - lower_bound)`. Violet is better than
    random, white is random, orange is clustered, gray is unknown. A cross marks a kernel with
    neurons that are zero, duplicate or not finite. The first kernel is on the left.

    Args:
        report: a report of `energy_report`.
        ax: a matplotlib Axes. None means a new one.

    Returns:
        The Axes.

    Raises:
        TypeError: if the argument is no report.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.plots import heat_strip
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> ax = heat_strip(energy_report(model))
    """
    if not isinstance(report, Report):
        raise TypeError(
            "Invalid value for argument `report`. Expected a report of `energy_report(model)`. "
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
    names = [shortened(row.name, _NAME_LENGTH) for row in report.rows]
    ax.set_xticks(
        range(count), names, rotation=90, fontsize=9 if count <= 20 else 6, parse_math=False
    )
    ax.set_yticks([])
    title = "position of each kernel: 0 best possible, 1 random"
    if np.isnan(positions).any():
        title += "; gray: unknown"
    if faulty:
        title += "; cross: faulty neurons"
    ax.set_title(title, fontsize=9)
    marks = [0, 0.5, 1, *(mark for mark in (2, 5, 10, 100, 1000) if mark <= top)]
    bar = ax.figure.colorbar(scale, ax=ax, pad=0.01)
    bar.set_ticks(_shade(marks).tolist(), labels=[f"{mark:g}" for mark in marks])
    return ax
