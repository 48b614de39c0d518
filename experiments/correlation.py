"""What training does to the neurons of CNN-9, with MHE and without: from the runs of `cnn9`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments import cnn9
from experiments.comparing import arms, in_words, parts_that
from experiments.experiment import Experiment
from experiments.records import Record

VARIANTS = ("baseline", "half-space MHE s=2")
_FIGURES = ("position", "smallest")


def _layers(record: Record) -> range:
    return range(1, 1 + len(record["details"]) // len(_FIGURES))


def by_layer(records: list[Record]) -> list[Record]:
    """For each run of `VARIANTS` a record of every layer, as if each had been a run."""
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
        for curves in [{name: record["details"][f"layer {layer} {name}"] for name in _FIGURES}]
    ]


def _mean_curve(runs: list[Record], layer: int, name: str) -> np.ndarray:
    return np.mean([run["details"][f"layer {layer} {name}"] for run in runs], axis=0)


def draw(records: list[Record]) -> Figure:
    """Positions and smallest angles over training, means over seeds, a curve for each layer."""
    chosen = [record for record in records if record["config"]["variant"] in VARIANTS]
    found = [arm for arm, _ in arms(chosen, VARIANTS)]
    figure, axes = plt.subplots(
        2,
        len(found),
        figsize=(4.8 * len(found), 7),
        layout="constrained",
        sharey="row",
        squeeze=False,
    )
    for column, arm in zip(axes.T, found, strict=True):
        runs = list(arm.runs.values())
        layers = _layers(runs[0])
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(layers)))
        for ax, name in zip(column, _FIGURES, strict=True):
            for layer, colour in zip(layers, colours, strict=True):
                curve = _mean_curve(runs, layer, name)
                training = np.linspace(0, 100, len(curve))
                ax.plot(training, curve, color=colour, label=f"{layer}")
            ax.grid(alpha=0.3)
        condition = in_words(arm.condition, parts_that(True, chosen))
        title = f"{arm.variant}, {len(runs)} runs"
        column[0].set_title(f"{condition}\n{title}" if condition else title, fontsize="medium")
        column[0].axhline(1, color="0.4", linestyle=":")
        column[1].set_xlabel("training, %")
    axes[0, 0].set_ylabel("position: 0 the bound, 1 random")
    axes[1, 0].set_ylabel("smallest angle, °")
    axes[0, -1].legend(title="layer", fontsize="small", ncols=2)
    return figure


experiment = Experiment(
    "correlation",
    __doc__,
    cnn9.run,
    VARIANTS,
    headlines=("position", "smallest angle °"),
    grid=cnn9.experiment.grid,
    quick=cnn9.experiment.quick,
    along="layer",
    seen_as=by_layer,
    closer=draw,
    runs="cnn9",
)
