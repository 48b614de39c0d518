"""Neurons of two coordinates, on the circle."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.plots._points import badge, check_points, colours_of, colours_of_samples, unit_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def neurons_on_circle(
    neurons: Any,
    features: Any = None,
    labels: Any = None,
    *,
    names: Any = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws neurons of two coordinates on the unit circle, and features within it.

    A neuron is `w / |w|`; a feature keeps its length, as a share of the longest: `x / max |x|`.

    Args:
        neurons: array of shape `(2, N)`, a neuron a column, as in the kernel of Dense.
        features: array of shape `(samples, 2)`, the inputs of the layer.
        labels: integers of shape `(samples,)`; features take the colour of that neuron.
        names: a short text for each neuron; its number by default.
        ax: a matplotlib Axes; a new one by default.

    Returns:
        The Axes.

    Raises:
        ValueError: for neurons or features without exactly two coordinates.

    Examples:
        >>> import numpy as np
        >>> from keras_mhe.plots import neurons_on_circle
        >>> ax = neurons_on_circle(np.eye(2))
        >>> len(ax.texts)
        2
    """
    check_points(neurons, features, 2)
    if ax is None:
        ax = plt.figure(figsize=(5, 5), layout="constrained").add_subplot()
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color="0.8", linewidth=1, zorder=0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    colours = colours_of(np.shape(neurons)[1])
    if features is not None:
        points = np.asarray(features, "float64")
        points = points / max(np.max(np.linalg.norm(points, axis=1), initial=0), 1e-300)
        own = colours_of_samples(points, labels, colours)
        ax.scatter(points[:, 0], points[:, 1], s=6, c=own, alpha=0.6, linewidths=0)
    for i, tip in enumerate(unit_rows(np.transpose(neurons))):
        ax.plot(*zip(np.zeros(2), tip, strict=True), color=colours[i], linewidth=1.6)
        x, y = 1.06 * tip
        ax.text(x, y, str(i if names is None else names[i]), **badge(colours[i]))
    return ax
