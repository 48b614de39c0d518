"""Neurons of three coordinates, on the sphere."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.plots._points import badge, check_points, colours_of, colours_of_samples, unit_rows

if TYPE_CHECKING:
    from mpl_toolkits.mplot3d import Axes3D

# Opacity of what lies on the far side of the sphere.
_BEHIND = 0.08


def _globe(ax: "Axes3D") -> None:
    azimuth, polar = np.linspace(0, 2 * np.pi, 73), np.linspace(0, np.pi, 37)
    x, y = (np.outer(turn(azimuth), np.sin(polar)) for turn in (np.cos, np.sin))
    z = np.outer(np.ones_like(azimuth), np.cos(polar))
    ax.plot_wireframe(x, y, z, rstride=6, cstride=6, color="0.88", linewidth=0.5, zorder=0)
    ax.set_box_aspect((1, 1, 1), zoom=1.45)
    ax.set_proj_type("ortho")
    ax.set_axis_off()


def neurons_on_sphere(
    neurons: Any,
    features: Any = None,
    labels: Any = None,
    *,
    names: Any = None,
    view: tuple[float, float] = (20.0, 40.0),
    ax: "Axes3D | None" = None,
) -> "Axes3D":
    """Draws neurons of three coordinates, and features among them, on the unit sphere.

    Each point is `x / |x|`. What lies behind the sphere is drawn faint.

    Args:
        neurons: array of shape `(3, N)`, a neuron a column, as in the kernel of Dense.
        features: array of shape `(samples, 3)`, the inputs of the layer.
        labels: integers of shape `(samples,)`; features take the colour of that neuron.
        names: a short text for each neuron; its number by default.
        view: elevation and azimuth of the eye, in degrees.
        ax: a 3-D matplotlib Axes; a new one by default.

    Returns:
        The Axes.

    Raises:
        ValueError: for neurons or features without exactly three coordinates, and for an Axes
            without three dimensions.

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
    colours = colours_of(np.shape(neurons)[1])

    if features is not None:
        points = unit_rows(features)
        own = colours_of_samples(points, labels, colours)
        own[:, 3] = np.where(points @ eye > 0, 0.6, _BEHIND)
        ax.scatter(*points.T, s=5, c=own, depthshade=False, linewidths=0)
    for i, tip in enumerate(unit_rows(np.transpose(neurons))):
        alpha = 1.0 if tip @ eye > 0 else 2 * _BEHIND
        ax.plot(*zip(np.zeros(3), tip, strict=True), color=colours[i], alpha=alpha, linewidth=1.6)
        label = str(i if names is None else names[i])
        text = ax.text(*(1.08 * tip), label, alpha=alpha, zorder=10, **badge(colours[i]))
        text.get_bbox_patch().set_alpha(alpha)
    return ax
