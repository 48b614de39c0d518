"""Effect of training on the neurons of CNN-9, with and without MHE, from the runs of `cnn9`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments import cnn9
from experiments.comparison import arms, condition_text, independent_parts
from experiments.experiment import Experiment
from experiments.kernel_curves import KEPT_FIGURES
from experiments.records import Record

VARIANTS = ("baseline", "half-space MHE s=2")


def _layers(record: Record) -> range:
    return range(1, 1 + len(record["details"]) // len(KEPT_FIGURES))


def records_of_layers(records: list[Record]) -> list[Record]:
    """Returns a record for every layer of each run of `VARIANTS`, with `"layer"` in its config."""
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
        if record["config"]["variant"] in VARIANTS
        for layer in _layers(record)
        for curves in [{name: record["details"][f"layer {layer} {name}"] for name in KEPT_FIGURES}]
    ]


def _mean_curve(runs: list[Record], layer: int, name: str) -> np.ndarray:
    return np.mean([run["details"][f"layer {layer} {name}"] for run in runs], axis=0)


def draw(records: list[Record]) -> Figure:
    """Draws positions and smallest angles over training: a curve per layer, mean over seeds."""
    selected = [record for record in records if record["config"]["variant"] in VARIANTS]
    columns = [arm for arm, _ in arms(selected, VARIANTS)]
    figure, axes = plt.subplots(
        2,
        len(columns),
        figsize=(4.8 * len(columns), 7),
        layout="constrained",
        sharey="row",
        squeeze=False,
    )
    for column, arm in zip(axes.T, columns, strict=True):
        runs = list(arm.runs.values())
        layers = _layers(runs[0])
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(layers)))
        for ax, name in zip(column, KEPT_FIGURES, strict=True):
            for layer, color in zip(layers, colors, strict=True):
                curve = _mean_curve(runs, layer, name)
                training = np.linspace(0, 100, len(curve))
                ax.plot(training, curve, color=color, label=f"{layer}")
            ax.grid(alpha=0.3)
        condition = condition_text(arm.condition, independent_parts(selected))
        title = f"{arm.variant}, {len(runs)} runs"
        column[0].set_title(f"{condition}\n{title}" if condition else title, fontsize="medium")
        column[0].axhline(1, color="0.4", linestyle=":")
        column[1].set_xlabel("training, %")
    axes[0, 0].set_ylabel("position (0: lower bound, 1: random)")
    axes[1, 0].set_ylabel("smallest angle, °")
    axes[0, -1].legend(title="layer", fontsize="small", ncols=2)
    return figure


experiment = Experiment(
    "correlation",
    __doc__,
    cnn9.run,
    VARIANTS,
    main_metrics=("position", "smallest angle °"),
    grid=cnn9.experiment.grid,
    quick_grid=cnn9.experiment.quick_grid,
    # All layers at width 16; the first and the last at width 64.
    page_rows=({"width": (16,)}, {"width": (64,), "layer": (1, 11)}),
    page_metrics=("position", "smallest angle °"),
    x_axis="layer",
    transform=records_of_layers,
    detail_figure=draw,
    runs_of="cnn9",
)
