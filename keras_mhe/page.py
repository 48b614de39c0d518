"""A report as one web page that needs nothing else."""

import base64
import io
import math
from importlib import resources
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from keras_mhe import __version__
from keras_mhe.plots import heat_strip, nearest_angles
from keras_mhe.plots.strip import colours_of_positions
from keras_mhe.report import Report, Standing

# So many kernels have their angles drawn.
_DRAWN = 6


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _as_data(figure: Figure) -> str:
    """A figure as the address of a picture that is its own content."""
    data = io.BytesIO()
    # Without the date, and ids that are random otherwise: one report makes one page.
    with mpl.rc_context({"svg.hashsalt": "keras_mhe"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(data.getvalue()).decode()


def worst(report: Report) -> list[Standing]:
    """The kernels that stand worst, of those that have angles: faults first, then positions."""
    rows = [row for row in report.rows if row.smallest is not None]
    return sorted(rows, key=lambda row: (not row.faults, -(row.position or 0.0)))[:_DRAWN]


def _histogram(row: Standing) -> str:
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    nearest_angles(row, ax=figure.add_subplot())
    return _as_data(figure)


def picture(report: Report) -> bytes:
    """A PNG of the strip and, below it, the histograms of the kernels that stand worst."""
    drawn = worst(report)
    lines = max(1, -(-len(drawn) // 3))
    size = (max(12.0, 0.2 * len(report.rows) + 1.5), 3.0 + 3.0 * lines)
    figure = Figure(figsize=size, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.0, 3.0 * lines])
    top, below = parts
    heat_strip(report, ax=top.add_subplot())
    for i, row in enumerate(drawn):
        nearest_angles(row, ax=below.add_subplot(lines, 3, i + 1))
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return data.getvalue()


def page(report: Report, name: str) -> str:
    """The HTML text of a report: numbers, strip, table and histograms.

    Args:
        report: of `energy_report`.
        name: what the model is called.
    """
    summary = report.summary
    tiles = [
        (_number(summary["energy_position"], 2), "mean position: 0 best possible, 1 random"),
        (_number(summary["worst_energy_position"], 2), "worst position"),
        (_number(summary["smallest_angle"], 1) + "°", "smallest angle between two neurons"),
        (f"{summary['faulty_neurons']:.0f}", "neurons zero, duplicate or not finite"),
    ]
    width = max(5.0, 0.2 * len(report.rows) + 1.5)
    strip = Figure(figsize=(width, 2.8), layout="constrained")
    heat_strip(report, ax=strip.add_subplot())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    source = (resources.files("keras_mhe") / "page.html").read_text(encoding="utf-8")
    content: dict[str, Any] = {
        "name": name,
        "report": report,
        "tiles": tiles,
        "strip": _as_data(strip),
        "strip_width": round(100 * width),
        "rows": list(zip(report.rows, colours_of_positions(report), strict=True)),
        "histograms": [(_histogram(row), row) for row in worst(report)],
        "version": __version__,
    }
    return environment.from_string(source).render(content) + "\n"
