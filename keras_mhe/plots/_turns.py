"""Draws how far the neurons of each kernel turned, beside the change of its position."""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from keras_mhe.analysis import DriftReport
from keras_mhe.plots._limits import drawn_limits
from keras_mhe.plots._marks import MAX_LINEAR, mark_positions
from keras_mhe.plots._names import shortened
from keras_mhe.plots._texts import capacity, space_text, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

# Longer names would leave too little width for the picture.
_NAME_LENGTH = 32
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def turns_height(report: DriftReport) -> float:
    """The height in inches at which the names of the kernels do not overlap."""
    return 1.6 + 0.2 * len(report.changes)


def _draw_turns(ax: "Axes", report: DriftReport, color: Any) -> None:
    drawn = drawn_limits(ax, "x")
    quantiles = np.full((len(report.changes), len(_QUANTILES)), np.nan)
    for y, change in enumerate(report.changes):
        if len(change.finite_turns):
            quantiles[y] = np.percentile(change.finite_turns, _QUANTILES)
        else:
            ax.annotate("unknown", (0, y), color="0.4", fontsize=8, va="center")
    heights = np.arange(len(quantiles))
    least, low, left, middle, right, high, most = quantiles.T
    ax.hlines(heights, low, high, color=color, linewidth=1.2)
    ax.hlines(heights, left, right, color=color, linewidth=5)
    ax.plot(np.append(least, most), np.append(heights, heights), ".", color=color, markersize=4)
    ax.plot(middle, heights, "|", color="black", markersize=8, markeredgewidth=1.6)
    ax.set_xlim(0, max([1.05 * np.nanmax(most, initial=0) or 90.0, *drawn]))
    ax.set_xlabel(wrapped(ax, "turn of a neuron, degrees", 9), fontsize=9)
    title = wrapped(ax, "bar: half of the neurons, line: 90 %, dots: ends", 8)
    ax.set_title(title, fontsize=8, loc="left")


def _draw_positions(ax: "Axes", report: DriftReport, colors: Any) -> None:
    drawn = drawn_limits(ax, "x")
    positions = np.array(
        [
            [np.nan if row.position is None else row.position for row in (each.before, each.after)]
            for each in report.changes
        ]
    )
    heights = np.arange(len(positions))
    before, after = positions.T
    ax.hlines(heights, before, after, color="0.6", linewidth=1.5, zorder=1)
    ax.scatter(before, heights, 26, facecolor="white", edgecolor="0.3", label="before", zorder=2)
    for where, color, label in (
        (after < before, colors[0], "after: lower"),
        (after > before, colors[1], "higher"),
        (after == before, "0.3", "equal"),
    ):
        if where.any():
            ax.scatter(after[where], heights[where], 26, color=color, label=label, zorder=3)
    ax.axvline(1, color="0.6", linewidth=1, linestyle="--", zorder=0)
    top = 1.1 * np.nanmax(positions, initial=1.0)
    if top > MAX_LINEAR:
        top *= 1.3
        ax.set_xscale("symlog", linthresh=1)
        mark_positions(ax.xaxis)
    low = min(0.0, 1.1 * np.nanmin(positions, initial=0.0))
    ax.set_xlim(min([low - 0.05, *drawn]), max([top + 0.05, *drawn]))
    spaces = [each.after.half_space for each in report.changes]
    if len(set(spaces)) > 1:
        # Beside the picture, since the names of the kernels are in the other one.
        for height, half in zip(heights, spaces, strict=True):
            ax.annotate(
                " half" if half else " full", (1, height), xycoords=("axes fraction", "data"),
                annotation_clip=False, fontsize=8, va="center",
            )  # fmt: skip
    label = f"position: 0 best possible, 1 random\n{space_text(spaces)}"
    ax.set_xlabel(wrapped(ax, label, 9), fontsize=9)
    narrow = capacity(ax, 8) < 50
    ax.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, borderaxespad=0.2,
        ncols=2 if narrow else 4, fontsize=8, frameon=False, handletextpad=0, columnspacing=0.8,
    )  # fmt: skip


def neuron_turns(
    report: DriftReport, *, axes: "Sequence[Axes] | None" = None
) -> tuple["Axes", "Axes"]:
    """Draws how far the neurons of each kernel turned, and the change of its position.

    The turn of a neuron is the angle between its directions before and after. Beside it are the
    positions before and after, `(energy - lower_bound) / (uniform_energy - lower_bound)`. The first
    kernel is at the top.

    Args:
        report: a report of `energy_report(model, against=...)`.
        axes: two matplotlib Axes side by side, for turns and positions. None means new ones.

    Returns:
        Both Axes. Turns are in degrees.

    Raises:
        TypeError: if the argument is no such report.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.plots import neuron_turns
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> before = keras.models.clone_model(model)
        >>> turns, positions = neuron_turns(energy_report(model, against=before))
    """
    if not isinstance(report, DriftReport):
        raise TypeError(
            "Invalid value for argument `report`. Expected a report of "
            f"`energy_report(model, against=...)`. Received: report={type(report).__name__}"
        )
    if axes is None:
        size = (9.0, turns_height(report))
        axes = plt.figure(figsize=size, layout="constrained").subplots(1, 2, sharey=True)
    left, right = axes
    drawn = [drawn_limits(ax, "y") for ax in axes]
    colors = mpl.color_sequences["petroff10"]
    _draw_turns(left, report, colors[0])
    _draw_positions(right, report, colors)
    count = len(report.changes)
    names = [shortened(each.name, _NAME_LENGTH) for each in report.changes]
    right.set_yticks(range(count))
    left.set_yticks(range(count), names, fontsize=8, parse_math=False)
    for ax, limits in zip((left, right), drawn, strict=True):
        ax.set_ylim(max([count - 0.4, *limits]), min([-0.6, *limits]))
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
        ax.tick_params("x", labelsize=8)
    right.tick_params("y", labelleft=False)
    return left, right
