"""What pictures of neurons on a circle and on a sphere share."""

from typing import Any

import matplotlib as mpl
import numpy as np


def check_points(neurons: Any, features: Any, dimension: int) -> None:
    """Says what is wrong with neurons or features that have not so many coordinates."""
    shape = np.shape(neurons)
    if len(shape) != 2 or shape[0] != dimension:
        raise ValueError(
            f"Argument `neurons` must have shape ({dimension}, N), a neuron a column. "
            f"Received: neurons.shape={shape}"
        )
    shape = np.shape(features)
    if features is not None and (len(shape) != 2 or shape[1] != dimension):
        raise ValueError(
            f"Argument `features` must have shape (samples, {dimension}). "
            f"Received: features.shape={shape}"
        )


def unit_rows(points: Any) -> np.ndarray:
    """Points on the sphere; those at its centre stay there."""
    points = np.asarray(points, "float64")
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norms == 0, 1, norms)


def colours_of(count: int) -> np.ndarray:
    """A colour for each neuron, by turns, of shape `(count, 4)`."""
    palette = mpl.color_sequences["petroff10"]
    return np.array([mpl.colors.to_rgba(palette[i % len(palette)]) for i in range(count)])


def colours_of_samples(features: np.ndarray, labels: Any, colours: np.ndarray) -> np.ndarray:
    """The colour of each feature's neuron, grey without labels."""
    if labels is None:
        return np.full((len(features), 4), mpl.colors.to_rgba("0.4"))
    return colours[np.asarray(labels)]


def badge(colour: Any) -> dict[str, Any]:
    """How the name of a neuron is written on its tip."""
    face = {"boxstyle": "circle,pad=0.2", "facecolor": colour, "edgecolor": "white"}
    return {
        "color": "white", "fontsize": 9, "fontweight": "bold", "ha": "center", "va": "center",
        "bbox": face,
    }  # fmt: skip
