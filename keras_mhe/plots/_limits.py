"""Limits of axes that other pictures share."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def drawn_limits(ax: "Axes", which: Literal["x", "y"]) -> list[float]:
    """The limits of an axis if data was drawn on it before; otherwise an empty list.

    The data can be in another picture that shares the axis. New limits must contain these ones, or
    the other picture loses data.
    """
    shared = ax.get_shared_x_axes() if which == "x" else ax.get_shared_y_axes()
    if not any(other.has_data() for other in shared.get_siblings(ax)):
        return []
    return sorted(ax.get_xlim() if which == "x" else ax.get_ylim())
