"""Plots time and memory against the number of neurons, with logarithmic axes."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

# Colors of Okabe and Ito, which color-blind readers can distinguish; each has its own marker.
_STYLES = {
    "product": ("plain product WᵀW", "#000000", "x"),
    "e2 half": ("keras_mhe, half space", "#0072B2", "o"),
    "a2 half": ("keras_mhe, half space, angular", "#56B4E9", "s"),
    "orthogonal": ("keras OrthogonalRegularizer", "#E69F00", "D"),
    "papers": ("papers' formula, half space", "#D55E00", "^"),
}


def _series(rows: list[dict[str, Any]], name: str, value: str) -> tuple[list[int], list[float]]:
    points = sorted((row["shape"][1], row[value]) for row in rows if row["contender"] == name)
    return [n for n, _ in points], [value for _, value in points]


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes the plot of one run to a file."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    dimension = results["curve_dimension"]
    rows = [row for row in results["kernels"] if row["shape"][0] == dimension]
    for contender, (label, color, marker) in _STYLES.items():
        style = {"color": color, "marker": marker, "label": label, "markersize": 5}
        left.plot(*_series(rows, contender, "seconds"), **style)
        memory = _series(results["memory"], contender, "peak_mib")
        if memory[0]:
            right.plot(*memory, **style)
    left.set(
        title=f"Value and gradient, {dimension} coordinates",
        xlabel="neurons N",
        ylabel="seconds",
    )
    baseline = min((row["before_mib"] for row in results["memory"]), default=0)
    right.axhline(baseline, color="gray", linestyle=":", label="process without an energy")
    right.set(
        title=f"Peak memory of the process, {results['memory_dimension']} coordinates",
        xlabel="neurons N",
        ylabel="MiB",
    )
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
    machine = results["machine"]
    hardware = machine["accelerator"] or f"{machine['processor']}, {machine['cores']} cores"
    figure.suptitle(f"{hardware}, {machine['backend']} with XLA", fontsize="medium")
    figure.savefig(path, dpi=120)
    plt.close(figure)
