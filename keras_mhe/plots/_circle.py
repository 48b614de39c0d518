"""Draws neurons of two coordinates on the circle."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from keras_mhe._typing import Tensor
from keras_mhe.plots._points import (
    badge,
    check_points,
    colors_of,
    colors_of_samples,
    texts_of,
    unit_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def neurons_on_circle(
    neurons: Tensor,
    features: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    names: Iterable[object] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws neurons of two coordinates on the unit circle, and features inside it.

    A neuron is drawn at `w / |w|`, a feature at `x / max |x|`: the longest feature has length 1.

    Args:
        neurons: array of shape `(2, N)`, one neuron in each column, as in the kernel of Dense.
        features: array of shape `(samples, 2)`, the inputs of the layer.
        labels: integers of shape `(samples,)`. A feature has the color of the neuron with this
            number. Without labels, features are gray.
        names: a short text for each neuron. None means their numbers.
        ax: a matplotlib Axes. None means a new one.

    Returns:
        The Axes.

    Raises:
        ValueError: if neurons or features do not have exactly two coordinates.

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
    colors = colors_of(np.shape(neurons)[1])
    texts = texts_of(names, len(colors))
    if features is not None:
        points = np.asarray(features, "float64")
        points = points / max(np.max(np.linalg.norm(points, axis=1), initial=0), 1e-300)
        own = colors_of_samples(points, labels, colors)
        ax.scatter(points[:, 0], points[:, 1], s=6, c=own, alpha=0.6, linewidths=0)
    for i, tip in enumerate(unit_rows(np.transpose(neurons))):
        ax.plot(*zip(np.zeros(2), tip, strict=True), color=colors[i], linewidth=1.6)
        x, y = 1.06 * tip
        ax.text(x, y, texts[i], **badge(texts[i], colors[i]))
    return ax
