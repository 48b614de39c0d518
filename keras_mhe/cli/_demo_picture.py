"""Draws the class vectors of two networks of the demo, with the smallest angle between them."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Ellipse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COMMON = "0.35"
# Rare classes have strong colors, from the most common to the rarest. All others are gray.
_RARE = [mpl.colors.to_hex(mpl.color_sequences["petroff10"][i]) for i in (2, 4, 0)]
RAREST = len(_RARE)
_WEDGE = "#ffd966"
# The largest tilt of the plane of the closest pair, in degrees. It changes the angle by up to 3 %.
_TILT = 12.0


class Panel(NamedTuple):
    """One network in the picture.

    Attributes:
        title: what distinguishes the network.
        class_vectors: array of shape `(3, classes)`, one class vector in each column.
        text: lines below the class vectors.
    """

    title: str
    class_vectors: np.ndarray
    text: str


def closest_pair(directions: np.ndarray) -> tuple[int, int, float]:
    """The columns with the smallest angle between them, and this angle in degrees."""
    cosines = np.clip(directions.T @ directions, -1, 1)
    np.fill_diagonal(cosines, -np.inf)
    first, second = np.unravel_index(np.argmax(cosines), cosines.shape)
    return int(first), int(second), float(np.degrees(np.arccos(cosines[first, second])))


def _tilts() -> list[np.ndarray]:
    """Rotations by small angles about the horizontal and the vertical axis of the picture."""
    angles = np.radians([0, _TILT / 2, -_TILT / 2, _TILT, -_TILT])
    return [
        np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        for a, b in itertools.product(angles, angles)
    ]


def view_of(directions: np.ndarray) -> np.ndarray:
    """The rotation to the coordinates of the picture: right, up, and toward the viewer.

    The closest pair of directions is at the top, nearly in the plane of the picture. Of the two
    sides of this plane and of small tilts, the view is used in which tips overlap least, and in
    which the tips in front cover the wedge least.
    """
    first, second, _ = closest_pair(directions)
    right = directions[:, second] - directions[:, first]
    up = directions[:, second] + directions[:, first]
    right, up = right / np.linalg.norm(right), up / np.linalg.norm(up)
    sides = [np.array([x, up, np.cross(x, up)]) for x in (right, -right)]
    views = [tilt @ side for tilt in _tilts() for side in sides]
    others = np.delete(np.arange(directions.shape[1]), [first, second])
    # Points along both lines of the pair and between them.
    shares = np.array([(1, 0), (0, 1), (0.5, 0.5)])[:, None] * np.linspace(0.2, 1, 5)[:, None]
    wedge = shares.reshape(-1, 2) @ directions[:, [first, second]].T

    def gap(view: np.ndarray) -> float:
        x, y, depth = view @ directions
        tips = np.array([x, y]).T
        between = np.linalg.norm(tips[:, None] - tips, axis=2) + 9 * np.eye(len(tips))
        between[first, second] = between[second, first] = 9
        front = tips[others[depth[others] > 0]]
        inside = np.linalg.norm(front[:, None] - (wedge @ view.T)[:, :2], axis=2)
        return float(min(between.min(), inside.min(initial=9)))

    return max(views, key=gap)


def _color(index: int, classes: int) -> str:
    rank = index - classes + RAREST
    return _RARE[rank] if rank >= 0 else _COMMON


def _draw_wedge(ax: "Axes", first: np.ndarray, second: np.ndarray) -> None:
    steps = np.linspace(0, 1, 61)[:, None]
    arc = (1 - steps) * first + steps * second
    arc /= np.linalg.norm(arc, axis=1, keepdims=True)
    points = np.concatenate([np.zeros((1, 3)), 0.8 * arc])
    ax.fill(points[:, 0], points[:, 1], color=_WEDGE, alpha=0.75, linewidth=0, zorder=3)


def _draw_panel(ax: "Axes", panel: Panel, names: Sequence[object]) -> None:
    directions = panel.class_vectors / np.linalg.norm(panel.class_vectors, axis=0)
    first, second, angle = closest_pair(directions)
    tips = (view_of(directions) @ directions).T
    ax.add_patch(Circle((0, 0), 1, facecolor="0.96", edgecolor="0.8"))
    ax.add_patch(Ellipse((0, 0), 2, 0.5, facecolor="none", edgecolor="0.88"))
    _draw_wedge(ax, tips[first], tips[second])
    for index, (x, y, depth) in enumerate(tips):
        behind = depth < 0 and index not in (first, second)
        # The wedge has order 3.
        order = 2 + depth if behind else 4 + depth
        color = np.array(mpl.colors.to_rgb(_color(index, len(tips))))
        color = 0.55 * color + 0.45 * 0.96 if behind else color
        # Nearer lines are larger.
        size = 1 + 0.25 * depth
        ax.plot([0, x], [0, y], color=color, linewidth=3 * size, zorder=order)
        ax.plot(x, y, "o", color=color, ms=20 * size, markeredgecolor="white", zorder=order)
        ax.text(
            x, y, str(names[index]), color="white", fontsize=13 * size, fontweight="bold",
            ha="center", va="center_baseline", zorder=order,
        )  # fmt: skip
    center: dict[str, Any] = {"ha": "center", "va": "center"}
    ax.text(0, 1.56, panel.title, fontsize=20, fontweight="bold", **center)
    box = {"boxstyle": "round,pad=0.25", "facecolor": _WEDGE, "edgecolor": "none"}
    ax.text(0, 1.28, f"smallest angle {angle:.0f}°", fontsize=17, bbox=box, **center)
    ax.text(0, -1.3, panel.text, fontsize=15, linespacing=1.3, **center)
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.5, 1.7), aspect="equal")
    ax.set_axis_off()


def draw_class_vectors(
    panels: Sequence[Panel], names: Sequence[object], counts: Sequence[int], note: str
) -> Figure:
    """Draws two networks: class vectors as lines, and the smallest angle between two as a wedge.

    Each network has its own view, in which its closest pair is at the top.

    Args:
        panels: the two networks.
        names: a short name for each class.
        counts: training images of each class, from the most common class to the rarest.
        note: small text below the legend.
    """
    figure = Figure(figsize=(9.6, 6.4))
    grid = {"left": 0.01, "right": 0.99, "bottom": 0.17, "top": 1.0, "wspace": 0.0}
    for ax, panel in zip(figure.subplots(1, 2, gridspec_kw=grid), panels, strict=True):
        _draw_panel(ax, panel, names)
    rare = zip(names[-RAREST:], counts[-RAREST:], strict=True)
    texts = [f"digit {name}: {count} images" for name, count in rare]
    texts += [f"others: {counts[-RAREST - 1]} to {counts[0]}"]
    colors = [*_RARE, _COMMON]
    handles = [
        Line2D([], [], color=color, marker="o", linewidth=3, markersize=11, label=text)
        for color, text in zip(colors, texts, strict=True)
    ]
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.09), ncols=len(handles),
        frameon=False, fontsize=14, handlelength=1.5, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip
    figure.text(0.5, 0.015, note, fontsize=11, color="0.35", ha="center", va="bottom")
    return figure
