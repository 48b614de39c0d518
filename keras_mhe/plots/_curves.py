"""Draws the losses of regularizers for two neurons."""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe._typing import Tensor

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
    if farthest is None:
        half = any(getattr(r, "half_space", False) for r in regularizers.values())
        farthest = 90.0 if half else 180.0
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
    for (name, regularizer), style in zip(regularizers.items(), styles, strict=False):
        values = [float(regularizer(k)) for k in np.moveaxis(kernels, -1, 0).astype("float32")]
        *values, unit = np.subtract(values, values[-2])
        ax.plot(angles[:-1], np.divide(values, unit), style, label=name)
    ax.set(xlabel="angle between two neurons, degrees", ylabel="loss relative to 45°")
    ax.set_ylim(-0.1, 6)
    ax.set_xticks(np.arange(0, farthest + 1, 15 if farthest <= 90 else 30))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
