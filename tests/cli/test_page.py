"""The HTML page of a report is self-contained, has all values, and fits browser windows."""

import base64
import os
import shutil
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import energy_report
from keras_mhe._printable import printable
from keras_mhe.analysis import DriftReport, Report
from keras_mhe.cli import _page
from keras_mhe.cli._page import kernels_to_draw, position_word, render_html, render_png
from keras_mhe.plots._turns import turns_height

pytestmark = pytest.mark.once

# Elements without an end tag.
_VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Checks that elements are nested correctly; collects tags, attributes and cell texts."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.cells, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "span", "b", "li", "title"):
            self.cells.append(data.strip())


def report(name="hidden", faults=True, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, name=name),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="head"),
        ]
    )
    value = normals(16, 10)
    if faults:
        value[:, 1], value[3, 3] = 0, np.inf
    model.get_layer("head").kernel.assign(value)
    return energy_report(model, **options)


def drift(name="hidden", **options):
    """A report of changes; the first kernel had another name, and the last one a fault."""
    keras.utils.set_random_seed(1)
    before, after = (
        keras.Sequential(
            [keras.Input((16,)), layers.Dense(12, name=first), layers.Dense(10, name="head")]
        )
        for first in ("first", name)
    )
    value = normals(12, 10)
    value[:, 1] = 0
    before.get_layer("head").kernel.assign(value)
    return energy_report(after, against=before, **options)


def outline(text):
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def test_page_has_all_values_of_the_report():
    content = report()
    parsed = outline(render_html(content, "model.keras"))
    for row in content.rows:
        assert row.name in parsed.cells
        assert f"{row.nearest_angle_min:.1f}" in parsed.cells
        assert f"{row.uniform_energy:.5f}" in parsed.cells
    assert f"{content.rows[0].position:.3f}" in parsed.cells
    assert "1 zero, 1 not finite" in parsed.cells
    assert "Neurons of model.keras" in parsed.cells
    assert any(cell.startswith("depthwise/kernel: ") for cell in parsed.cells)


def test_page_names_the_kernels_of_the_smallest_angle_and_of_the_largest_position():
    rows = [
        row._replace(layer=name, nearest_angle_min=angle, position=position)
        for row, name, angle, position in zip(
            [report().rows[0]] * 3, "abc", (50.0, 12.34, None), (0.5, None, 7.125), strict=True
        )
    ]
    text = render_html(Report(rows, {}), "model.keras")
    assert "<b>12.3°</b><span>smallest nearest angle</span><i>b</i>" in text
    assert "<b>7.12</b><span>largest position: clustered</span><i>c</i>" in text
    # A report without angles and positions has no such numbers.
    rows = [row._replace(nearest_angle_min=None, position=None) for row in rows]
    text = render_html(Report(rows, {}), "model.keras")
    assert "smallest nearest angle" not in text
    assert "largest position" not in text


def test_columns_have_the_names_of_the_report_with_angles_and_position_first():
    text = render_html(report(), "model.keras")
    head = text.partition("<thead>")[2].partition("</thead>")[0]
    assert outline(head).cells == [
        *("kernel", "nearest angle", "position", "space", "measured as", "neurons", "dimension"),
        *("energy", "lower bound", "uniform energy", "min", "mean", "uniform", "max"),
    ]
    # Each of them is explained.
    words = ("nearest angle", "position", "space", "measured as", "neurons, dimension", "energy")
    for word in words:
        assert f"<dt>{word}</dt><dd>" in text
    for words in ("Half space: ", "Full space: ", "Lower bound: ", "Uniform energy: "):
        assert words in text


@pytest.mark.parametrize(
    ("neurons", "position", "word"),
    [
        (100, None, ""),
        (100, 0.0, "best possible"),
        (100, 0.5, "spread"),
        (100, 0.9, "random"),
        (100, 1.1, "random"),
        (100, 26.5, "clustered"),
        (10, 1.25, "random"),
        (10, 1.35, "clustered"),
    ],
)
def test_a_word_says_what_a_position_means(neurons, position, word):
    row = report().rows[0]._replace(neurons=neurons, position=position)
    assert position_word(row) == word


def test_new_layers_are_called_random():
    keras.utils.set_random_seed(0)
    sizes = [(64, 288), (256, 64), (128, 64), (96, 16), (32, 64)]
    for neurons, dimension in sizes:
        model = keras.Sequential([keras.Input((dimension,)), layers.Dense(neurons)])
        assert position_word(energy_report(model).rows[0]) == "random"


def test_page_has_all_changes():
    content = drift()
    content = DriftReport(content, content.changes, {"old/kernel": "only before"})
    parsed = outline(render_html(content, "model.keras"))
    first, head = content.changes
    assert {"hidden (was first)", "head", "old/kernel: only before"} <= set(parsed.cells)
    for change in (first, head):
        assert f"{change.before.energy:.5f}" in parsed.cells
        assert f"{change.after.energy:.5f}" in parsed.cells
        assert f"{change.change('position'):.3f}" in parsed.cells
        assert f"{change.turned_mean:.2f}" in parsed.cells
        assert f"{change.turned_max:.2f}" in parsed.cells
    assert f"{content.summary['turned_mean']:.1f}°" in parsed.cells
    texts = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(texts) == 4
    assert "Changes" not in render_html(report(), "model.keras")


def test_png_has_a_part_for_the_changes():
    content = drift()
    heights = [
        int.from_bytes(render_png(each)[20:24], "big")
        for each in (content, Report(content.rows, {}))
    ]
    assert heights[0] - heights[1] == pytest.approx(120 * turns_height(content), abs=1)


def test_page_loads_no_resources_and_has_no_scripts():
    parsed = outline(render_html(report(), "model.keras"))
    for tag, name, value in parsed.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:"), (tag, value)
        assert not name.startswith("on")
    assert "script" not in parsed.tags
    pictures = [v for tag, name, v in parsed.attributes if (tag, name) == ("img", "src")]
    assert len(pictures) == 3
    for data in pictures:
        svg = base64.b64decode(data.partition("base64,")[2]).decode()
        assert "<svg" in svg
        assert "<script" not in svg


def test_pictures_have_alternative_texts():
    parsed = outline(render_html(report(), "model.keras"))
    texts = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(texts) == 3
    assert all(len(text) > 30 for text in texts)


def test_names_from_a_file_are_escaped():
    # The name holds HTML, and a formula that matplotlib cannot parse.
    name = "<b onclick=alert(1)>&'\" $\\frac{$"
    text = render_html(report(name), f"{name}.keras")
    assert name not in text
    assert name in outline(text).cells


# The page would be in another direction, and pictures with controls would be no XML.
_HOSTILE = ("a\x1b[31mb\nc", "\u202ea", "a\ud800", "$\\frac{$ 模型 👩\u200d💻", "_a")


@pytest.mark.parametrize("name", _HOSTILE)
def test_control_characters_of_names_are_escaped_in_pages_and_pictures(name):
    content = report()
    rows = [content.rows[0]._replace(layer=name), *content.rows[1:]]
    content = Report(rows, {name: name}, name)
    text = render_html(content, f"{name}.keras")
    parsed = outline(text)
    assert printable(name) in parsed.cells
    assert f"Neurons of {printable(name)}.keras" in parsed.cells
    assert f"{printable(name)}: {printable(name)}" in parsed.cells
    pictures = [v for tag, label, v in parsed.attributes if (tag, label) == ("img", "src")]
    for part in (text, *(base64.b64decode(v.partition("base64,")[2]).decode() for v in pictures)):
        # Emoji may have joiners.
        found = {unicodedata.category(letter) for letter in part if letter not in "\n\u200d"}
        assert not found & {"Cc", "Cf", "Cs"}
    for data in pictures:
        ElementTree.fromstring(base64.b64decode(data.partition("base64,")[2]))
    assert render_png(content).startswith(b"\x89PNG")


def test_control_characters_of_names_of_changes_are_escaped():
    name, content = "".join(_HOSTILE), drift()
    changes = [each._replace(after=each.after._replace(layer=name)) for each in content.changes]
    content = DriftReport(content, changes, {name: name}, name)
    parsed = outline(render_html(content, name))
    assert f"{printable(name)} (was first)" in parsed.cells
    assert f"{printable(name)}: {printable(name)}" in parsed.cells
    for tag, label, value in parsed.attributes:
        if (tag, label) == ("img", "src"):
            ElementTree.fromstring(base64.b64decode(value.partition("base64,")[2]))
    assert render_png(content).startswith(b"\x89PNG")


def test_pictures_of_many_kernels_have_a_limited_width(monkeypatch):
    monkeypatch.setattr(_page, "_MOST_WIDTH", 15.0)
    many = Report([report().rows[0]] * 100, {})
    assert _page._turns_height(DriftReport(many, drift().changes * 1000, {})) == 40.0
    assert int.from_bytes(render_png(many)[16:20], "big") == 15 * 120
    assert "max-width: 1500px" in render_html(many, "x")


def test_equal_reports_give_equal_pages():
    content, changes = report(), drift()
    assert render_html(content, "x") == render_html(content, "x")
    assert _page._turns(changes) == _page._turns(changes)


def test_reports_without_positions_or_directions_are_rendered():
    content = report(s=0, distance="angular", half_space=False)
    assert "-" in outline(render_html(content, "x")).cells
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros", name="d")]
    )
    zeros = energy_report(model)
    assert "3 zero" in outline(render_html(zeros, "x")).cells
    render_png(zeros)


def test_kernels_with_faults_are_drawn_first():
    content = report()
    assert [row.name for row in kernels_to_draw(content)] == ["head", "hidden"]
    assert render_png(content).startswith(b"\x89PNG")


def browser_path():
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.parametrize("content", [report, drift])
@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_page_fits_the_browser_window_without_errors_or_requests(tmp_path, width, content):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "page.html"
    path.write_text(render_html(content("a_kernel_with_quite_a_long_name_" * 3), "model.keras"))
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"]
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        tab = browser.new_page(viewport={"width": width, "height": 800})
        messages, requests = [], []
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_load_state("networkidle")
        assert messages == []
        assert [url for url in requests if not url.startswith(("data:", path.as_uri()))] == []
        # The page does not scroll horizontally. Wide elements scroll in boxes of their own.
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        boxes = "[...document.querySelectorAll('.wide, .tile, .grid img, h1, p, li')]"
        edges = tab.evaluate(f"{boxes}.map(box => box.getBoundingClientRect().right)")
        assert max(edges) <= width
        # Names, angles and positions are in view, before anything is scrolled.
        heads = (
            "[...document.querySelectorAll('thead th')].filter(x => x.textContent == 'position')"
        )
        edges = tab.evaluate(f"{heads}.map(cell => cell.getBoundingClientRect().right)")
        assert width < 390 or edges[-1] <= width
        # A short name takes one line, a long one several.
        lines = "[...document.querySelectorAll('tbody th span')].map(name => name.offsetHeight)"
        long, short = tab.evaluate(lines)[:2]
        assert short < 2 * 1.5 * 16 <= long
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        browser.close()
