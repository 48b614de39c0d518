"""Plots differences from the baseline with their 95 % intervals."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.comparison import Arm, comparisons, condition_text, independent_parts
from experiments.experiment import Experiment
from experiments.records import Record

# Colors of Okabe and Ito, which color-blind readers can distinguish.
_COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def _plotted(experiment: Experiment) -> tuple[str, ...]:
    return experiment.plotted_variants or experiment.variants


def _panels(records: list[Record], experiment: Experiment) -> dict[str, list[tuple[Arm, Arm]]]:
    """Groups arms and their baselines by the independent parts that are not on the x-axis."""
    panels: dict[str, list[tuple[Arm, Arm]]] = {}
    parts = [part for part in independent_parts(records) if part != experiment.x_axis]
    for arm, baseline in comparisons(records, experiment.variants):
        if arm.variant in _plotted(experiment):
            panels.setdefault(condition_text(arm.condition, parts), []).append((arm, baseline))
    return panels


def _draw_panel(
    ax: Axes, pairs: list[tuple[Arm, Arm]], metric: str, experiment: Experiment
) -> None:
    x_axis = experiment.x_axis
    present = {arm.variant for arm, _ in pairs}
    variants = [variant for variant in _plotted(experiment) if variant in present]
    ticks = sorted({arm.condition[x_axis] for arm, _ in pairs}) if x_axis else variants
    for number, variant in enumerate(variants):
        own = [(arm, baseline) for arm, baseline in pairs if arm.variant == variant]
        x = [ticks.index(arm.condition[x_axis] if x_axis else variant) for arm, _ in own]
        # Variants at the same tick stand side by side.
        x = np.add(x, 0.5 * ((number + 0.5) / len(variants) - 0.5) if x_axis else 0)
        differences = [arm.difference(baseline, metric) for arm, baseline in own]
        means = np.array([difference.mean for difference in differences])
        reach = np.array([difference.high for difference in differences]) - means
        failed = np.array([arm.failed_runs(experiment) > 0 for arm, _ in own])
        # A variant has the same color in every panel. If variants are on the x-axis, one is enough.
        color = _COLORS[_plotted(experiment).index(variant) % len(_COLORS) if x_axis else 0]
        style = {"markersize": 4, "capsize": 3, "color": color}
        ax.errorbar(x[~failed], means[~failed], reach[~failed], fmt="o", label=variant, **style)
        ax.plot(x[failed], means[failed], "x", color=color)
    ax.axhline(0, color="0.4", linewidth=1)
    low, high = ax.get_ylim()
    if high - low > 20:
        # Differences of a point and of tens of points are both visible.
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks(
            [t for t in (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100) if low <= t <= high],
        )
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        # Recompute the margins beyond the ends of intervals for this scale.
        ax.autoscale(axis="y")
    ax.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    ax.grid(alpha=0.3, axis="y")
    if x_axis:
        ax.set_xlabel(x_axis)
    else:
        # Long names end at their ticks.
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
        ax.margins(x=0.15)


def draw(records: list[Record], experiment: Experiment) -> Figure:
    """Draws a panel for each condition.

    With an x-axis, panels show the first main metric. Without one, each main metric has a panel.
    """
    metrics = experiment.main_metrics[: 1 if experiment.x_axis else None]
    panels = [
        (", ".join(filter(None, (title, metric if len(metrics) > 1 else ""))), metric, pairs)
        for title, pairs in _panels(records, experiment).items()
        for metric in metrics
    ]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    # A single panel is too narrow for a legend in one line.
    two_lines = columns == 1 and experiment.x_axis is not None
    legend_columns, legend_height = (3, 1.2) if two_lines else (5, 0.6)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(6.4, 4.8 * columns), legend_height + 3.4 * rows),
        layout="constrained",
        squeeze=False,
    )
    labels: dict[str, Any] = {}
    for ax, (title, metric, pairs) in zip(axes.flat, panels, strict=False):
        _draw_panel(ax, pairs, metric, experiment)
        ax.set_title(title, fontsize="medium")
        handles, names = ax.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    label = "difference from the baseline"
    figure.supylabel(f"{metrics[0]}, {label}" if len(metrics) == 1 else label, fontsize="medium")
    if experiment.x_axis:
        order = [variant for variant in _plotted(experiment) if variant in labels]
        figure.legend(
            [labels[variant] for variant in order],
            order,
            loc="outside upper center",
            ncols=legend_columns,
        )
    return figure
