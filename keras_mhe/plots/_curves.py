"""Draws the losses of regularizers for two neurons."""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from keras_mhe._printable import printable
from keras_mhe._typing import Tensor
from keras_mhe.plots._limits import drawn_limits
from keras_mhe.plots._texts import add_legend, space_text, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pair_curves(
    regularizers: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    farthest: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the losses of regularizers for two neurons, against the angle between the neurons.

    `(f(angle) - f(farthest)) / (f(45) - f(farthest))`: 0 at the largest angle, 1 at 45 degrees. A
    curve that is steep on the left gives the closest neurons a large weight.

    Args:
        regularizers: dict of bare regularizers, or of other functions of a kernel of shape
            `(3, 2)`. The keys are the names in the legend.
        farthest: the largest angle in degrees. None means 180, or 90 if a regularizer is in half
            space, where the mirror image of a neuron beyond 90 degrees is closer than 90 degrees.
        ax: a matplotlib Axes. None means a new one.

    Returns:
        The Axes. Angles are in degrees.

    Raises:
        ValueError: if there is no regularizer, if one of them learns, or if `farthest` is not
            between 45 and 180 degrees.

    Examples:
        >>> from keras_mhe import MHE, MHS
        >>> from keras_mhe.plots import pair_curves
        >>> ax = pair_curves({"MHE": MHE(), "MHS": MHS()})
    """
    if not regularizers:
        raise ValueError("Expected at least one regularizer. Received: regularizers={}")
    spaces = [bool(getattr(r, "half_space", False)) for r in regularizers.values()]
    if farthest is None:
        farthest = 90.0 if True in spaces else 180.0
    if not 45 < farthest <= 180:
        raise ValueError(
            "Invalid value for argument `farthest`. Expected an angle above 45 degrees and of at "
            f"most 180. Received: farthest={farthest!r}"
        )
    if ax is None:
        ax = plt.figure(figsize=(6, 4), layout="constrained").add_subplot()
    ax.set_prop_cycle(mpl.style.library["tableau-colorblind10"]["axes.prop_cycle"])
    angles = np.concatenate([np.linspace(4, farthest, 89), [45.0]])
    turns = np.radians(angles)
    ones, zeros = np.ones_like(turns), np.zeros_like(turns)
    # Two neurons of three coordinates for each angle.
    kernels = np.array([[ones, np.cos(turns)], [zeros, np.sin(turns)], [zeros, zeros]])
    styles = itertools.cycle(["-", "--", "-.", ":"])
    drawn = drawn_limits(ax, "x")
    lines, names = ax.get_legend_handles_labels()
    for (name, regularizer), style in zip(regularizers.items(), styles, strict=False):
        values = [float(regularizer(k)) for k in np.moveaxis(kernels, -1, 0).astype("float32")]
        *values, unit = np.subtract(values, values[-2])
        lines += ax.plot(angles[:-1], np.divide(values, unit), style, label=name)
        names.append(printable(name))
    label = "angle between two neurons, degrees"
    if True in spaces:
        label += f"\n{space_text(spaces)}"
    ax.set_xlabel(wrapped(ax, label, 9), fontsize=9)
    ax.set_ylabel("loss relative to 45°")
    end = max([farthest, *drawn])
    ax.set(xlim=(-0.02 * end, 1.02 * end), ylim=(-0.1, 6))
    ax.xaxis.set_major_locator(mpl.ticker.MultipleLocator(15 if end <= 100 else 30))
    ax.grid(alpha=0.3)
    add_legend(ax, lines, names)
    return ax
