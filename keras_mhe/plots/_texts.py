"""Texts that fit beside an Axes, and texts that several pictures share."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_HALF = "half space: mirror images count as one neuron"
_FULL = "full space: mirror images count as two neurons"


def space_text(half_spaces: Iterable[bool]) -> str:
    """What half space and full space mean, for kernels that are in half space or not."""
    spaces = set(half_spaces)
    if len(spaces) > 1:
        return f"{_HALF}\nfull space: as two neurons"
    return "".join(_HALF if half else _FULL for half in spaces)


def capacity(ax: "Axes", size: float, *, vertical: bool = False) -> int:
    """The number of letters of a size in points that are as long as an Axes is wide or high."""
    figure: Any = ax.get_figure(root=True)
    box = ax.get_window_extent()
    length = (box.height if vertical else box.width) * 72 / figure.dpi
    # The mean width of a letter is about half of its size.
    return max(8, int(length / (0.53 * size)))


def wrapped(ax: "Axes", text: str, size: float) -> str:
    """A text in lines that fit above or below an Axes. Existing lines stay apart."""
    width = capacity(ax, size)
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def add_legend(
    ax: "Axes", handles: Sequence["Artist"], names: Sequence[str], **options: Any
) -> None:
    """Adds a legend with any names.

    With explicit names, since matplotlib omits those that begin with an underscore.
    """
    for text in ax.legend(handles, names, **options).get_texts():
        text.set_parse_math(False)
