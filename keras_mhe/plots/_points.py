"""Checks, directions and colors for the pictures of neurons on the circle and on the sphere."""

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np

from keras_mhe._printable import printable
from keras_mhe._typing import Tensor


def check_points(neurons: Tensor, features: Tensor | None, dimension: int) -> None:
    """Raises if neurons or features do not have `dimension` coordinates."""
    shape = np.shape(neurons)
    if len(shape) != 2 or shape[0] != dimension:
        raise ValueError(
            f"Argument `neurons` must have shape ({dimension}, N), one neuron in each column. "
            f"Received: neurons.shape={shape}"
        )
    if features is None:
        return
    shape = np.shape(features)
    if len(shape) != 2 or shape[1] != dimension:
        raise ValueError(
            f"Argument `features` must have shape (samples, {dimension}). "
            f"Received: features.shape={shape}"
        )


def unit_rows(points: Tensor) -> np.ndarray:
    """The directions of points. Points at the origin stay there."""
    points = np.asarray(points, "float64")
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norms == 0, 1, norms)


def colors_of(count: int) -> np.ndarray:
    """The colors of neurons, of shape `(count, 4)`. The colors repeat for many neurons."""
    palette = mpl.color_sequences["petroff10"]
    return np.array([mpl.colors.to_rgba(palette[i % len(palette)]) for i in range(count)])


def colors_of_samples(
    features: np.ndarray, labels: Tensor | None, colors: np.ndarray
) -> np.ndarray:
    """The colors of the neurons of features; gray without labels."""
    if labels is None:
        return np.full((len(features), 4), mpl.colors.to_rgba("0.4"))
    return colors[np.asarray(labels)]


def texts_of(names: Iterable[object] | None, count: int) -> list[str]:
    """The names of neurons as texts; their numbers if there are no names."""
    return [printable(str(name)) for name in (range(count) if names is None else names)]


def badge(text: str, color: Any) -> dict[str, Any]:
    """The options of matplotlib for the name of a neuron, in a circle if it is short."""
    shape = "circle,pad=0.2" if len(text) <= 2 else "round,pad=0.3"
    face = {"boxstyle": shape, "facecolor": color, "edgecolor": "white"}
    return {
        "color": "white", "fontsize": 9, "fontweight": "bold", "ha": "center", "va": "center",
        "bbox": face, "parse_math": False,
    }  # fmt: skip
