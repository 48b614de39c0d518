"""Effect of training on the neurons of CNN-9, with and without MHE, from the runs of `cnn9`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import cnn9
from experiments.comparison import Arm, comparisons, condition_text, independent_parts
from experiments.experiment import Experiment
from experiments.kernel_curves import DRAWN_VARIANTS, KEPT_FIGURES
from experiments.records import Record


def _layers(record: Record) -> range:
    return range(1, 1 + len(record["details"]) // len(KEPT_FIGURES))


def records_of_layers(records: list[Record]) -> list[Record]:
    """Returns a record for every layer of each drawn run, with `"layer"` in its config."""
    return [
        record
        | {
            "config": record["config"] | {"layer": layer},
            "figures": {
                "position": curves["position"][-1],
                "smallest angle °": curves["smallest"][-1],
                "position before": curves["position"][0],
                "angle before °": curves["smallest"][0],
            },
        }
        for record in records
        if record["config"]["variant"] in DRAWN_VARIANTS
        for layer in _layers(record)
        for curves in [{name: record["details"][f"layer {layer} {name}"] for name in KEPT_FIGURES}]
    ]


def _mean_curve(runs: list[Record], layer: int, name: str) -> np.ndarray:
    # None, where a kernel has no position, becomes NaN.
    curves = np.array([run["details"][f"layer {layer} {name}"] for run in runs], dtype=float)
    return curves.mean(axis=0)


def _draw_curves(ax: Axes, arm: Arm, name: str) -> None:
    """Draws a curve for each layer."""
    runs = list(arm.runs.values())
    layers = _layers(runs[0])
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(layers)))
    for layer, color in zip(layers, colors, strict=True):
        curve = _mean_curve(runs, layer, name)
        ax.plot(np.linspace(0, 100, len(curve)), curve, color=color, label=f"{layer}")
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    ax.set_title(f"{arm.variant}, {count}", fontsize="medium")
    ax.grid(alpha=0.3)


def draw(records: list[Record]) -> Figure:
    """Draws positions and smallest angles over training: a row for each comparison, mean curves."""
    selected = [record for record in records if record["config"]["variant"] in DRAWN_VARIANTS]
    parts = independent_parts(selected)
    conditions = {
        condition_text(arm.condition, parts).replace(", ", "\n"): (baseline, arm)
        for arm, baseline in comparisons(selected, DRAWN_VARIANTS)
    }
    columns = len(DRAWN_VARIANTS)
    figure, axes = plt.subplots(
        len(conditions),
        2 * columns,
        figsize=(6 * columns, 0.6 + 2.7 * len(conditions)),
        layout="constrained",
        squeeze=False,
    )
    for row, (condition, own) in zip(axes, conditions.items(), strict=True):
        for name, panels in zip(KEPT_FIGURES, (row[:columns], row[columns:]), strict=True):
            for ax in panels[1:]:
                ax.sharey(panels[0])
            for ax, arm in zip(panels, own, strict=True):
                _draw_curves(ax, arm, name)
        row[0].set_ylabel(f"{condition}\n\nposition" if condition else "position")
        row[columns].set_ylabel("smallest angle, °")
        for ax in row[:columns]:
            ax.axhline(1, color="0.4", linestyle=":")
    for ax in axes[-1]:
        ax.set_xlabel("training, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="layer", loc="outside right center")
    return figure


experiment = Experiment(
    "correlation",
    __doc__,
    cnn9.run,
    DRAWN_VARIANTS,
    main_metrics=("position", "smallest angle °"),
    grid=cnn9.experiment.grid,
    quick_grid=cnn9.experiment.quick_grid,
    # The better rate: all layers at width 16; the first one and the most crowded one at width 64.
    page_rows=(
        {"width": (16,), "rate": (0.1,)},
        {"width": (64,), "rate": (0.1,), "layer": (1, 10)},
    ),
    page_metrics=("position", "smallest angle °"),
    x_axis="layer",
    transform=records_of_layers,
    detail_figure=draw,
    runs_of="cnn9",
)
