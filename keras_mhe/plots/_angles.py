"""Draws the angles from neurons to the nearest other ones, beside those of random neurons."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.analysis import KernelReport
from keras_mhe.plots._limits import drawn_limits
from keras_mhe.plots._names import shortened
from keras_mhe.plots._texts import capacity, space_text, wrapped
from keras_mhe.reference import nearest_angle_density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Longer names would not fit above the picture.
_NAME_LENGTH = 30
# In points.
_LABEL_SIZE = 9


def nearest_angles(row: KernelReport, *, ax: "Axes | None" = None) -> "Axes":
    """Draws a histogram of the angles from neurons to the nearest other ones.

    The line shows the same for random neurons: the density `(n-1) p (1-F)^(n-2)` of
    `keras_mhe.reference.nearest_angle_density`. If the bars are to the right of the line, the
    neurons are farther apart than random ones. In half space, angles to the mirror images of other
    neurons count too.

    Args:
        row: a row of a report, for example `energy_report(model).rows[0]`.
        ax: a matplotlib Axes. None means a new one. The limits of an axis that other pictures share
            contain the angles of all of them.

    Returns:
        The Axes, in degrees.

    Raises:
        TypeError: if the argument is no row of a report.
        ValueError: if no neuron of the kernel has a direction.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.plots import nearest_angles
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> ax = nearest_angles(energy_report(model).rows[0])
    """
    if not isinstance(row, KernelReport):
        raise TypeError(
            "Invalid value for argument `row`. Expected a row of a report, such as "
            f"`energy_report(model).rows[0]`. Received: row={type(row).__name__}"
        )
    angles = row.nearest_angles[np.isfinite(row.nearest_angles)]
    if not len(angles):
        raise ValueError(f"No neuron of the kernel has a direction. Received: row={row.name}")
    if ax is None:
        ax = plt.figure(figsize=(6, 4), layout="constrained").add_subplot()
    drawn_x, drawn_y = drawn_limits(ax, "x"), drawn_limits(ax, "y")
    bars, line = mpl.color_sequences["petroff10"][:2]
    grid = np.linspace(0, 90 if row.half_space else 180, 3601)
    density = nearest_angle_density(grid, row.neurons, row.dimension, half_space=row.half_space)
    usual = grid[density > 1e-3 * np.max(density)]
    start = max(0.0, min(angles.min(), usual[0]) - 1)
    end = min(grid[-1], max(angles.max(), usual[-1]) + 1)
    # The width of the bars suits most angles: a few outliers do not change it.
    count = len(np.histogram_bin_edges(angles, "fd", range=(start, end))) - 1
    bins = np.linspace(start, end, 1 + min(200, max(30, count))).tolist()
    heights, _, _ = ax.hist(
        angles, bins, density=True, color=bars, alpha=0.75, label="these neurons"
    )
    ax.plot(grid, density, color=line, linewidth=2, label="random neurons")
    # Bars at 0, 90 and 180 degrees are beside the frame, not on it.
    margin = 0.01 * (end - start)
    ax.set_xlim(min([start - margin, *drawn_x]), max([end + margin, *drawn_x]))
    # Room for the legend.
    ax.set_ylim(0, max([1.25 * np.max(heights), 1.25 * np.max(density), *drawn_y]))
    ax.set_ylabel("fraction per degree")
    label = f"nearest angle, degrees\n{space_text([row.half_space])}"
    ax.set_xlabel(wrapped(ax, label, _LABEL_SIZE), fontsize=_LABEL_SIZE)
    title = shortened(row.name, min(_NAME_LENGTH, capacity(ax, 12)))
    ax.set_title(title, parse_math=False)
    ax.legend(loc="upper center", ncols=2, frameon=False, fontsize=9, handlelength=1.5)
    return ax
