"""Renders a report as one self-contained web page, or as one PNG."""

import base64
import io
import math
import warnings
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from keras_mhe import __version__
from keras_mhe._printable import printable
from keras_mhe.analysis import DriftReport, KernelReport, Report
from keras_mhe.plots import heat_strip, nearest_angles, neuron_turns
from keras_mhe.plots._strip import colors_of_positions
from keras_mhe.plots._turns import turns_height

# The number of kernels with a histogram of angles.
_HISTOGRAMS = 6
# The size of a picture in inches. A file can have thousands of kernels, and 3,000 took 1.9 GB.
_MOST_WIDTH, _MOST_HEIGHT = 100.0, 40.0


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _shown(value: Any) -> Any:
    """A value in the page: control and format characters of texts are escaped."""
    return printable(value) if isinstance(value, str) else value


def _saved(figure: Figure, **options: Any) -> bytes:
    """A figure as the content of a file."""
    data = io.BytesIO()
    # Without random ids, the same report always gives the same page.
    with mpl.rc_context({"svg.hashsalt": "keras_mhe"}), warnings.catch_warnings():
        # Names can have letters that no font of the system has. A picture shows boxes for them.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(data, **options)
    return data.getvalue()


def _data_url(figure: Figure) -> str:
    """A figure as a URL that contains its SVG."""
    data = _saved(figure, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(data).decode()


def kernels_to_draw(report: Report) -> list[KernelReport]:
    """The kernels with faults, and then those with the highest positions, if they have angles."""
    rows = [row for row in report.rows if row.nearest_angle_min is not None]
    return sorted(rows, key=lambda row: (not row.faults, -(row.position or 0.0)))[:_HISTOGRAMS]


def _width(report: Report, least: float) -> float:
    return min(_MOST_WIDTH, max(least, 0.2 * len(report.rows) + 1.5))


def _histogram(row: KernelReport) -> str:
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    nearest_angles(row, ax=figure.add_subplot())
    return _data_url(figure)


def _turns_height(report: DriftReport) -> float:
    return min(_MOST_HEIGHT, turns_height(report))


def _turns(report: DriftReport) -> str:
    figure = Figure(figsize=(9.0, _turns_height(report)), layout="constrained")
    neuron_turns(report, axes=figure.subplots(1, 2, sharey=True))
    return _data_url(figure)


def position_word(row: KernelReport) -> str:
    """The position of a kernel as a word; empty if it has none."""
    if row.position is None:
        return ""
    # Most new layers are within these limits. Few neurons vary more.
    margin = max(0.2, 3 / row.neurons)
    if row.position > 1 + margin:
        return "clustered"
    if row.position >= 1 - margin:
        return "random"
    return "spread" if row.position > 0.05 else "best possible"


class _Tile(NamedTuple):
    """A number at the top of the page, with the name of its kernel if it is that of one kernel."""

    number: str
    text: str
    kernel: str = ""


def _tiles(report: Report) -> list[_Tile]:
    """The main numbers of a report."""
    summary, tiles = report.summary, []
    angles = [row for row in report.rows if row.nearest_angle_min is not None]
    if angles:
        row = min(angles, key=lambda row: row.nearest_angle_min or 0.0)
        number = _number(row.nearest_angle_min, 1) + "°"
        tiles.append(_Tile(number, "smallest nearest angle", row.name))
    positions = [row for row in report.rows if row.position is not None]
    if positions:
        row = max(positions, key=lambda row: row.position or 0.0)
        text = f"largest position: {position_word(row)}"
        tiles.append(_Tile(_number(row.position, 2), text, row.name))
        text = "mean position: 0 is the best possible, 1 is random"
        tiles.append(_Tile(_number(summary["position_mean"], 2), text))
    faulty = f"{summary['faulty_neurons']:.0f}"
    tiles.append(_Tile(faulty, "neurons that are zero, duplicate or not finite"))
    if isinstance(report, DriftReport):
        tiles += [
            _Tile(_number(summary["turned_mean"], 1) + "°", "mean turn of a neuron"),
            _Tile(_number(summary["position_change"], 2), "mean change of position"),
        ]
    return tiles


def render_html(report: Report, name: str) -> str:
    """The HTML text of a report: numbers, strip, table and histograms, and changes if it has them.

    Args:
        report: a report of `energy_report`, with or without `against`.
        name: the name of the model.
    """
    drift = report if isinstance(report, DriftReport) else None
    width = _width(report, 5.0)
    strip = Figure(figsize=(width, 2.8), layout="constrained")
    heat_strip(report, ax=strip.add_subplot())
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    environment.filters["number"] = _number
    environment.filters["position_word"] = position_word
    source = (resources.files("keras_mhe.cli") / "page.html").read_text(encoding="utf-8")
    content: dict[str, Any] = {
        "name": name,
        "report": report,
        "tiles": _tiles(report),
        "drift": drift,
        "turns": None if drift is None else _turns(drift),
        "strip": _data_url(strip),
        "strip_width": round(100 * width),
        "rows": list(zip(report.rows, colors_of_positions(report), strict=True)),
        "histograms": [(_histogram(row), row) for row in kernels_to_draw(report)],
        "version": __version__,
    }
    return environment.from_string(source).render(content) + "\n"


def render_png(report: Report) -> bytes:
    """A PNG of the strip and, below it, of the changes if the report has them, and histograms."""
    rows = kernels_to_draw(report)
    lines = max(1, -(-len(rows) // 3))
    heights = [3.0, 3.0 * lines]
    if isinstance(report, DriftReport):
        heights.insert(1, _turns_height(report))
    figure = Figure(figsize=(_width(report, 12.0), sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    heat_strip(report, ax=parts[0].add_subplot())
    if isinstance(report, DriftReport):
        neuron_turns(report, axes=parts[1].subplots(1, 2, sharey=True))
    for i, row in enumerate(rows):
        nearest_angles(row, ax=parts[-1].add_subplot(lines, 3, i + 1))
    return _saved(figure, format="png", dpi=120)
