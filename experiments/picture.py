"""Differences from the baseline with their 95 % intervals."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.comparing import Arm, arms, in_words, parts_that
from experiments.experiment import Experiment
from experiments.records import Record

# Okabe and Ito's colours, which the colour-blind tell apart.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def _panels(records: list[Record], experiment: Experiment) -> dict[str, list[tuple[Arm, Arm]]]:
    """Arms with their baselines, by what differs beside the part that is on the axis."""
    panels: dict[str, list[tuple[Arm, Arm]]] = {}
    parts = [part for part in parts_that(True, records) if part != experiment.along]
    for arm, baseline in arms(records, experiment.variants):
        if baseline is not None:
            panels.setdefault(in_words(arm.condition, parts), []).append((arm, baseline))
    return panels


def _panel(ax: Axes, pairs: list[tuple[Arm, Arm]], headline: str, experiment: Experiment) -> None:
    along = experiment.along
    shown = {arm.variant for arm, _ in pairs}
    variants = [variant for variant in experiment.variants if variant in shown]
    places = sorted({arm.condition[along] for arm, _ in pairs}) if along else variants
    for number, variant in enumerate(variants):
        mine = [(arm, baseline) for arm, baseline in pairs if arm.variant == variant]
        x = [places.index(arm.condition[along] if along else variant) for arm, _ in mine]
        # Beside each other where they share a place.
        x = np.add(x, 0.5 * ((number + 0.5) / len(variants) - 0.5) if along else 0)
        gains = [arm.gain(baseline, headline) for arm, baseline in mine]
        means = np.array([gain.mean for gain in gains])
        reach = np.array([gain.high for gain in gains]) - means
        whole = np.array([not arm.ruined(experiment) for arm, _ in mine])
        # The same in every panel; where names stand on the axis, all alike.
        colour = _COLOURS[experiment.variants.index(variant) % len(_COLOURS) if along else 0]
        style = {"markersize": 4, "capsize": 3, "color": colour}
        ax.errorbar(x[whole], means[whole], reach[whole], fmt="o", label=variant, **style)
        ax.plot(x[~whole], means[~whole], "x", color=colour)
    ax.axhline(0, color="0.4", linewidth=1)
    low, high = ax.get_ylim()
    if high - low > 20:
        # Points beside tens of points.
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks(
            [t for t in (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100) if low <= t <= high],
        )
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        # Room beyond the ends of intervals on this scale too.
        ax.autoscale(axis="y")
    ax.set_xticks(range(len(places)), [str(place) for place in places])
    ax.grid(alpha=0.3, axis="y")
    if along:
        ax.set_xlabel(along)
    else:
        ax.tick_params("x", rotation=30)
        ax.margins(x=0.15)


def draw(records: list[Record], experiment: Experiment) -> Figure:
    """A panel a condition: its first headline along a part of it, or all without such a part."""
    headlines = experiment.headlines[: 1 if experiment.along else None]
    panels = [
        (", ".join(filter(None, (title, headline if len(headlines) > 1 else ""))), headline, pairs)
        for title, pairs in _panels(records, experiment).items()
        for headline in headlines
    ]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(6.4, 4.8 * columns), 0.6 + 3.4 * rows),
        layout="constrained",
        squeeze=False,
    )
    labels: dict[str, Any] = {}
    for ax, (title, headline, pairs) in zip(axes.flat, panels, strict=False):
        _panel(ax, pairs, headline, experiment)
        ax.set_title(title, fontsize="medium")
        handles, names = ax.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    what = f"{headlines[0]}, less" if len(headlines) == 1 else "Less"
    figure.supylabel(f"{what} the baseline", fontsize="medium")
    if experiment.along:
        order = [variant for variant in experiment.variants if variant in labels]
        figure.legend(
            [labels[variant] for variant in order], order, loc="outside upper center", ncols=5
        )
    return figure
