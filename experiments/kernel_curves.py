"""Positions and smallest angles of the kernels of a model during training."""

import numpy as np

from keras_mhe import EnergyMonitor

# Reports on the kernels during a training, at equal distances.
REPORTS = 20
# Figures of a report that a run keeps: their names in recorded details, and in rows of a report.
KEPT_FIGURES = {"position": "position", "smallest": "nearest_angle_min"}
# Variants that `correlation` draws. Their runs keep whole curves, and all other runs the ends, so
# that files of results stay small.
DRAWN_VARIANTS = ("baseline", "half-space MHE s=2")
Curves = dict[str, list[float | None]]


def curves_of(monitor: EnergyMonitor) -> Curves:
    """Returns the figures of every kernel, from before training to its end."""
    curves: Curves = {}
    for record in monitor.history:
        for number, row in enumerate(record["rows"], 1):
            for figure, key in KEPT_FIGURES.items():
                value = row[key]
                points = curves.setdefault(f"layer {number} {figure}", [])
                points.append(None if value is None else round(value, 5))
    return curves


def kept(curves: Curves, variant: str) -> Curves:
    """Returns the points that a record keeps: all, or the first and the last."""
    if variant in DRAWN_VARIANTS:
        return curves
    return {name: [points[0], points[-1]] for name, points in curves.items()}


def final_metrics(curves: Curves) -> dict[str, float]:
    """Returns mean position and smallest angle after training; NaN where no kernel has one."""

    def last(figure: str) -> list[float]:
        points = [points[-1] for name, points in curves.items() if name.endswith(figure)]
        return [point for point in points if point is not None] or [np.nan]

    return {"mean position": np.mean(last("position")), "smallest angle °": min(last("smallest"))}
