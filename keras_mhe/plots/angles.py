"""How near the neurons of a kernel come to each other, and how near random ones do."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.plots._names import shortened
from keras_mhe.reference import nearest_angle_density
from keras_mhe.report import Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Longer names would go beyond the picture.
_LETTERS = 30


def nearest_angles(row: Standing, *, ax: "Axes | None" = None) -> "Axes":
    """Draws how the angles from neurons to their nearest are spread, and the same for random ones.

    The line is `(n-1) p (1-F)^(n-2)`; see `keras_mhe.reference.nearest_angle_density`. Bars to the
    right of it: neurons keep more distance than random ones.

    Args:
        row: a row of a report, `energy_report(model).rows[0]`.
        ax: a matplotlib Axes; a new one by default.

    Returns:
        The Axes, in degrees.

    Raises:
        TypeError: for what is no row.
        ValueError: for a kernel in which no neuron has a direction.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.plots import nearest_angles
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> ax = nearest_angles(energy_report(model).rows[0])
    """
    if not isinstance(row, Standing):
        raise TypeError(
            "Invalid value for argument `row`. Expected a row of a report, "
            f"`energy_report(model).rows[0]`. Received: row={type(row).__name__}"
        )
    angles = row.nearest[np.isfinite(row.nearest)]
    if not len(angles):
        raise ValueError(f"No neuron of the kernel has a direction. Received: row={row.name}")
    if ax is None:
        ax = plt.figure(figsize=(6, 4), layout="constrained").add_subplot()
    bars, line = mpl.color_sequences["petroff10"][:2]
    grid = np.linspace(0, 90 if row.half_space else 180, 3601)
    density = nearest_angle_density(grid, row.neurons, row.dimension, half_space=row.half_space)
    usual = grid[density > 1e-3 * np.max(density)]
    start = max(0.0, min(angles.min(), usual[0]) - 1)
    end = min(grid[-1], max(angles.max(), usual[-1]) + 1)
    # As wide as suits most angles, however far off a few may be.
    count = len(np.histogram_bin_edges(angles, "fd", range=(start, end))) - 1
    bins = np.linspace(start, end, 1 + min(200, max(30, count))).tolist()
    heights, _, _ = ax.hist(
        angles, bins, density=True, color=bars, alpha=0.75, label="these neurons"
    )
    ax.plot(grid, density, color=line, linewidth=2, label="random neurons")
    ax.set(xlabel="angle to the nearest, degrees", ylabel="share per degree", xlim=(start, end))
    # Room for the legend.
    ax.set_ylim(0, 1.25 * max(np.max(heights), np.max(density)))
    ax.set_title(shortened(row.name, _LETTERS), parse_math=False)
    ax.legend(loc="upper center", ncols=2, frameon=False)
    return ax
