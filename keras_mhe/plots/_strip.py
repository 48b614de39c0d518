"""Draws the positions of all kernels of a model as colors."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.analysis import Report
from keras_mhe.plots._marks import mark_positions
from keras_mhe.plots._names import shortened
from keras_mhe.plots._texts import capacity, space_text, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_LENGTH = 28


def _shade(positions: Any) -> np.ndarray:
    """The value that the color shows: `position - 1`, and above position 1 its logarithm.

    It is -1 for the best possible position and 0 for a random one. Positions above 1 have no upper
    limit: trained layers can be at 2 or at 50.
    """
    positions = np.asarray(positions, "float64")
    return np.where(positions > 1, np.log2(np.maximum(positions, 1)), positions - 1)


def _scale(report: Report) -> tuple[np.ndarray, mpl.cm.ScalarMappable]:
    """The positions of a report, and the scale of colors."""
    positions = np.array([np.nan if r.position is None else r.position for r in report.rows])
    top = max(2.0, float(np.nanmax(positions, initial=0.0)))
    norm = mpl.colors.TwoSlopeNorm(0.0, -1.0, float(_shade(top)))
    colors = mpl.colormaps["PuOr_r"].with_extremes(bad="0.6")
    return positions, mpl.cm.ScalarMappable(norm, colors)


def colors_of_positions(report: Report) -> list[str]:
    """The color of each kernel in the strip as `#rrggbb`, lighter, as a background of text."""
    positions, mappable = _scale(report)
    # A mixture with white in equal parts.
    colors = 0.5 + 0.5 * mappable.to_rgba(_shade(positions))[:, :3]
    return [mpl.colors.to_hex(color) for color in colors]


def heat_strip(report: Report, *, ax: "Axes | None" = None) -> "Axes":
    """Draws the position of every kernel of a report as a strip of colors.

    `position = (energy - lower_bound) / (uniform_energy - lower_bound)`. Violet is better than
    random, white is random, orange is clustered, gray is unknown. A cross marks a kernel with
    neurons that are zero, duplicate or not finite. If a report has both spaces, a dot marks a
    kernel in full space. The first kernel is on the left. A narrow picture omits some names.

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
    positions, scale = _scale(report)
    count = len(positions)
    if ax is None:
        size = (max(4.0, 0.2 * count + 1.5), 3.2)
        ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    ax.imshow(scale.to_rgba(_shade(positions)[None]), aspect="auto")
    faulty = [i for i, row in enumerate(report.rows) if row.faults]
    ax.plot(faulty, np.zeros(len(faulty)), "x", color="black", markersize=5)
    font = 8 if count <= 20 else 6
    # Longer names would leave too little height for the colors.
    length = min(_NAME_LENGTH, capacity(ax, font, vertical=True) // 2)
    names = [shortened(row.name, length) for row in report.rows]
    # Names that overlap cannot be read.
    step = -(-2 * count // capacity(ax, font))
    ax.set_xticks(
        range(0, count, step), names[::step], rotation=90, fontsize=font, parse_math=False
    )
    ax.set_yticks([])
    full = [i for i, row in enumerate(report.rows) if not row.half_space]
    spaces = space_text(row.half_space for row in report.rows)
    if 0 < len(full) < count:
        ax.scatter(full, np.full(len(full), 0.4), s=12, color="black", edgecolor="white")
        spaces = f"{space_text([True])}; dot: full space"
    marks = ["gray: unknown"] * bool(np.isnan(positions).any())
    marks += ["cross: faulty neurons"] * bool(faulty)
    lines = ["position: 0 best possible, 1 random", spaces, "; ".join(marks)]
    ax.set_title(wrapped(ax, "\n".join(filter(None, lines)), 8), fontsize=8)
    bar = ax.figure.colorbar(scale, ax=ax, pad=0.01)
    mark_positions(bar.ax.yaxis, _shade)
    return ax
