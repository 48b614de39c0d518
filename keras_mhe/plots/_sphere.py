"""Draws neurons of three coordinates on the sphere."""

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
    from mpl_toolkits.mplot3d import Axes3D

# Opacity of points on the far side of the sphere.
_FAR_SIDE = 0.08


def _globe(ax: "Axes3D") -> None:
    azimuth, polar = np.linspace(0, 2 * np.pi, 73), np.linspace(0, np.pi, 37)
    x, y = (np.outer(turn(azimuth), np.sin(polar)) for turn in (np.cos, np.sin))
    z = np.outer(np.ones_like(azimuth), np.cos(polar))
    ax.plot_wireframe(x, y, z, rstride=6, cstride=6, color="0.88", linewidth=0.5, zorder=0)
    ax.set_box_aspect((1, 1, 1), zoom=1.45)
    ax.set_proj_type("ortho")
    ax.set_axis_off()


def neurons_on_sphere(
    neurons: Tensor,
    features: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    names: Iterable[object] | None = None,
    view: tuple[float, float] = (20.0, 40.0),
    ax: "Axes3D | None" = None,
) -> "Axes3D":
    """Draws neurons of three coordinates and features on the unit sphere.

    A point is drawn at `x / |x|`. Points on the far side of the sphere are faint.

    Args:
        neurons: array of shape `(3, N)`, one neuron in each column, as in the kernel of Dense.
        features: array of shape `(samples, 3)`, the inputs of the layer.
        labels: integers of shape `(samples,)`. A feature has the color of the neuron with this
            number. Without labels, features are gray.
        names: a short text for each neuron. None means their numbers.
        view: elevation and azimuth of the viewer, in degrees.
        ax: a 3-D matplotlib Axes. None means a new one.

    Returns:
        The Axes.

    Raises:
        ValueError: if neurons or features do not have exactly three coordinates, or if `ax` is not
            three-dimensional.

    Examples:
        >>> import numpy as np
        >>> from keras_mhe.plots import neurons_on_sphere
        >>> ax = neurons_on_sphere(np.eye(3))
        >>> len(ax.texts)
        3
    """
    check_points(neurons, features, 3)
    if ax is None:
        ax = plt.figure().add_subplot(projection="3d")
    if ax.name != "3d":
        raise ValueError(
            'Argument `ax` must have three dimensions: `figure.add_subplot(projection="3d")`. '
            f"Received: ax={ax!r}"
        )
    _globe(ax)
    elevation, azimuth = view
    ax.view_init(elev=elevation, azim=azimuth)
    up, around = np.radians(view)
    eye = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    colors = colors_of(np.shape(neurons)[1])
    texts = texts_of(names, len(colors))
    if features is not None:
        points = unit_rows(features)
        own = colors_of_samples(points, labels, colors)
        own[:, 3] = np.where(points @ eye > 0, 0.6, _FAR_SIDE)
        ax.scatter(*points.T, s=5, c=own, depthshade=False, linewidths=0)
    for i, tip in enumerate(unit_rows(np.transpose(neurons))):
        alpha = 1.0 if tip @ eye > 0 else 2 * _FAR_SIDE
        ax.plot(*zip(np.zeros(3), tip, strict=True), color=colors[i], alpha=alpha, linewidth=1.6)
        text = ax.text(
            *(1.08 * tip), texts[i], alpha=alpha, zorder=10, **badge(texts[i], colors[i])
        )
        text.get_bbox_patch().set_alpha(alpha)
    return ax
