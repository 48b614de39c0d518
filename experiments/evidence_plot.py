"""Plots the rows of the map: differences with intervals, and what they show."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.evidence import Line, Row, lines
from experiments.evidence_rules import GROUPS, OURS, PAPERS, SIDES

# Sizes in inches. The picture is narrow, so that its texts are readable on a phone.
_PANELS, _LINE, _TOP, _BOTTOM = 2.75, 0.14, 0.78, 0.48
# Space on the left and on the right of labels, and for the numbers of pairs.
_SPACE, _RIGHT = 0.12, 0.26
# Lines that the heading of a group takes, with the space above it.
_HEADING = 2.0
# Lines between conditions that differ in more than their last label.
_GAP = 0.3


class _Style(NamedTuple):
    color: str
    marker: str
    size: float
    line_width: float


# Colors of Okabe and Ito. The shapes of the markers tell the verdicts apart without colors.
_STYLES = {
    "helps": _Style("#0072B2", "^", 6.5, 2.2),
    "nothing shows": _Style("0.55", "o", 3.2, 1.1),
    "harms": _Style("#C24E00", "v", 6.5, 2.2),
    "runs failed": _Style("#C24E00", "x", 6.0, 0.0),
}


def _marker(verdict: str, survives: bool) -> dict[str, Any]:
    """Returns the look of a marker: filled where Holm's correction leaves the difference."""
    style = _STYLES[verdict]
    filled = survives or verdict == "nothing shows"
    return {
        "marker": style.marker,
        "markersize": style.size,
        "color": style.color,
        "markerfacecolor": style.color if filled else "white",
        "markeredgewidth": 1.2 if verdict != "nothing shows" else 0,
    }


def _draw_row(ax: Axes, height: float, row: Row) -> None:
    style, difference = _STYLES[row.verdict], row.difference
    if not row.failed:
        ends = [difference.low, difference.high]
        ax.plot(ends, [height, height], color=style.color, linewidth=style.line_width)
    ax.plot([difference.mean], [height], **_marker(row.verdict, row.survives))


def _set_scale(ax: Axes, rows: list[Row]) -> None:
    """Sets a scale that is linear within one point of zero and logarithmic beyond it."""
    ends = [
        end
        for row in rows
        for end in (
            [row.difference.mean] if row.failed else [row.difference.low, row.difference.high]
        )
    ]
    ax.set_xscale("symlog", linthresh=1, linscale=0.6)
    low, high = min([-1.5, *ends]) * 1.4, max([1.5, *ends]) * 1.4
    ax.set_xlim(low, high)
    ax.set_xticks([tick for tick in (-50, -10, -2, 0, 2, 10, 50) if low < tick < high])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.tick_params("x", labelsize=6.5, length=2)


def _add_legend(figure: Figure, height: float) -> None:
    handles = [
        Line2D([], [], linestyle="", label=verdict, **_marker(verdict, survives=True))
        for verdict in _STYLES
    ]
    figure.legend(
        handles=handles, loc="upper center", ncols=4, frameon=False, handletextpad=0.1, fontsize=7.5
    )
    note = "filled triangles: also after correction for many comparisons"
    figure.text(0.5, 1 - 0.32 / height, note, fontsize=7, ha="center")


def _layout(shown: list[Line]) -> tuple[list[float], dict[str, float], float]:
    """Returns the heights of lines and of the headings of groups, from the top, and their sum."""
    heights: list[float] = []
    headings: dict[str, float] = {}
    total, previous = 0.0, None
    for line in shown:
        if line.group not in headings:
            headings[line.group] = total + _HEADING - 0.9
            total += _HEADING
        elif line.labels[:-1] != previous:
            total += _GAP
        previous = line.labels[:-1]
        heights.append(total)
        total += 1
    return heights, headings, total


def _names(shown: list[Line]) -> list[str]:
    """Returns labels without what they have in common with the line above."""
    names = []
    previous: tuple[str, tuple[str, ...]] = ("", ())
    for line in shown:
        start = (line.group, line.labels[:-1])
        names.append(line.labels[-1] if start == previous else ", ".join(line.labels))
        previous = start
    return names


def _set_size(figure: Figure, height: float) -> float:
    """Makes the figure as wide as its labels need, and returns its width."""
    labels = figure.axes[0].get_yticklabels()
    widest = max(label.get_window_extent().width for label in labels) / figure.dpi
    left = widest + 2 * _SPACE
    width = left + _PANELS + _RIGHT
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=left / width,
        right=1 - _RIGHT / width,
        top=1 - _TOP / height,
        bottom=_BOTTOM / height,
        wspace=0.12,
    )
    return width


def draw(rows: list[Row]) -> Figure:
    """Draws a line for each condition: this package's settings left, the papers' right.

    A filled triangle is a difference that remains after Holm's correction over all rows; an open
    one has an interval that excludes zero without the correction.
    """
    shown = lines(rows)
    heights, headings, total = _layout(shown)
    height = _TOP + _BOTTOM + _LINE * total
    figure, axes = plt.subplots(1, 2, sharey=True)
    for ax, side in zip(axes, (OURS, PAPERS), strict=True):
        ax.set_title(f"settings of\n{SIDES[side]}", fontsize=8)
        ax.axvline(0, color="0.3", linewidth=0.9)
        for y, line in zip(heights, shown, strict=True):
            if side in line.sides:
                _draw_row(ax, y, line.sides[side])
        _set_scale(ax, rows)
        ax.grid(axis="x", alpha=0.3, linewidth=0.5)
        ax.spines[["left", "right", "top"]].set_visible(False)
        ax.tick_params("y", length=0)
    axes[0].set_ylim(total, 0)
    axes[0].set_yticks(heights, _names(shown), fontsize=7)
    width = _set_size(figure, height)
    for group, y in headings.items():
        from_bottom = 1 - (_TOP + _LINE * y) / height
        figure.text(0.012, from_bottom, GROUPS[group], fontsize=8, fontweight="bold", va="center")
    gray: dict[str, Any] = {"fontsize": 6, "color": "0.35"}
    for y, line in zip(heights, shown, strict=True):
        place = ("axes fraction", "data")
        axes[1].annotate(line.pairs, (1.01, y), xycoords=place, va="center", **gray)
    figure.text(1 - 0.06 / width, 1 - (_TOP - 0.06) / height, "pairs", ha="right", **gray)
    figure.supxlabel("difference in accuracy, percentage points, 95 % interval", fontsize=7.5)
    _add_legend(figure, height)
    return figure
