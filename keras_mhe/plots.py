"""Pictures of neurons. Needs matplotlib, which `pip install "keras-mhe[demo]"` brings."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import matplotlib as mpl
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'keras_mhe.plots needs matplotlib. Install it with: pip install "keras-mhe[demo]"'
    ) from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D

# Opacity of what lies on the far side of the sphere.
_BEHIND = 0.08


def _unit_rows(points: Any) -> np.ndarray:
    points = np.asarray(points, "float64")
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norms == 0, 1, norms)


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
        ValueError: for neurons or features without exactly three coordinates.

    Example:

    >>> import numpy as np
    >>> from keras_mhe.plots import neurons_on_sphere
    >>> ax = neurons_on_sphere(np.eye(3))
    >>> len(ax.texts)
    3
    """
    shape = np.shape(neurons)
    if len(shape) != 2 or shape[0] != 3:
        raise ValueError(
            "Argument `neurons` must have shape (3, N), a neuron a column. "
            f"Received: neurons.shape={shape}"
        )
    if features is not None and (np.ndim(features) != 2 or np.shape(features)[1] != 3):
        raise ValueError(
            "Argument `features` must have shape (samples, 3). "
            f"Received: features.shape={np.shape(features)}"
        )
    if ax is None:
        ax = plt.figure().add_subplot(projection="3d")
    _globe(ax)
    elevation, azimuth = view
    ax.view_init(elev=elevation, azim=azimuth)
    up, around = np.radians(view)
    eye = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    palette = mpl.color_sequences["petroff10"]
    colours = np.array([mpl.colors.to_rgba(palette[i % len(palette)]) for i in range(shape[1])])

    if features is not None:
        points = _unit_rows(features)
        own = np.full((len(points), 4), mpl.colors.to_rgba("0.4"))
        if labels is not None:
            own = colours[np.asarray(labels)]
        own[:, 3] = np.where(points @ eye > 0, 0.6, _BEHIND)
        ax.scatter(*points.T, s=5, c=own, depthshade=False, linewidths=0)
    for i, tip in enumerate(_unit_rows(np.transpose(neurons))):
        alpha = 1.0 if tip @ eye > 0 else 2 * _BEHIND
        ax.plot(*zip(np.zeros(3), tip, strict=True), color=colours[i], alpha=alpha, linewidth=1.6)
        label = str(i if names is None else names[i])
        face = {"boxstyle": "circle,pad=0.2", "facecolor": colours[i], "edgecolor": "white"}
        ax.text(
            *(1.08 * tip), label, color="white", fontsize=9, fontweight="bold", alpha=alpha,
            ha="center", va="center", bbox={**face, "alpha": alpha}, zorder=10,
        )  # fmt: skip
    return ax


def pair_curves(
    regularizers: dict[str, Any], *, farthest: float = 180.0, ax: "Axes | None" = None
) -> "Axes":
    """Draws what regularizers say of two neurons, against the angle between them.

    `(f(angle) - f(farthest)) / (f(45) - f(farthest))`: 0 where the neurons are as far apart as they
    can be, 1 at 45 degrees. The steeper a curve on the left, the more the closest neurons count.

    Args:
        regularizers: functions of a kernel, as bare regularizers are, by the names to show.
        farthest: the largest angle in degrees: 180, or 90 in half space.
        ax: a matplotlib Axes; a new one by default.

    Returns:
        The Axes.

    Raises:
        ValueError: for no regularizer or an angle not between 45 and 180.

    Example:

    >>> from keras_mhe import MHE, MHS
    >>> from keras_mhe.plots import pair_curves
    >>> ax = pair_curves({"MHE": MHE(), "MHS": MHS()})
    """
    if not regularizers:
        raise ValueError("Expected at least one regularizer. Received: regularizers={}")
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
    ax.set(xlabel="angle between two neurons, degrees", ylabel="relative to 45°", ylim=(-0.1, 6))
    ax.set_xticks(np.arange(0, farthest + 1, 15 if farthest <= 90 else 30))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
