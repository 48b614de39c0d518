"""Differences from the baseline with their 95 % intervals."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.comparing import Arm, arms, parts_that
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
            title = ", ".join(f"{part} {arm.condition[part]}" for part in parts)
            panels.setdefault(title, []).append((arm, baseline))
    return panels


def draw(records: list[Record], experiment: Experiment) -> Figure:
    """The first headline: a panel a condition, along a part of it if the experiment says so."""
    headline, along = experiment.headlines[0], experiment.along
    panels = _panels(records, experiment)
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(max(6.4, 4.4 * len(panels)), 4.2),
        layout="constrained",
        squeeze=False,
    )
    for ax, (title, pairs) in zip(axes[0], panels.items(), strict=True):
        variants = list(dict.fromkeys(arm.variant for arm, _ in pairs))
        places = sorted({arm.condition[along] for arm, _ in pairs}) if along else variants
        for number, variant in enumerate(variants):
            mine = [(arm, baseline) for arm, baseline in pairs if arm.variant == variant]
            x = np.array(
                [places.index(arm.condition[along] if along else variant) for arm, _ in mine]
            )
            gains = [arm.gain(baseline, headline) for arm, baseline in mine]
            # Beside each other where they share a place.
            shift = 0.5 * (number / max(len(variants) - 1, 1) - 0.5) if along else 0
            ax.errorbar(
                x + shift,
                [gain.mean for gain in gains],
                [gain.high - gain.mean for gain in gains],
                fmt="o",
                markersize=4,
                capsize=3,
                color=_COLOURS[number % len(_COLOURS)],
                label=variant,
            )
        ax.axhline(0, color="0.4", linewidth=1)
        ax.set_xticks(range(len(places)), [str(place) for place in places])
        if along:
            ax.set_xlabel(along)
        else:
            ax.tick_params("x", rotation=30)
            ax.margins(x=0.15)
        ax.set_title(title, fontsize="medium")
        ax.grid(alpha=0.3, axis="y")
    axes[0, 0].set_ylabel(f"{headline}, less the baseline")
    if along:
        axes[0, -1].legend(fontsize="small")
    return figure
