"""The page needs nothing from outside, shows what the report says, and works in a browser."""

import base64
import os
import shutil
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from keras import layers
from probes import normals

from keras_mhe import energy_report
from keras_mhe.page import page, picture, worst

pytestmark = pytest.mark.once

# Elements that HTML closes by itself.
_VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Checks that elements close in order, and collects what they hold."""

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


def outline(text):
    parsed = Outline()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def test_every_number_is_there():
    content = report()
    parsed = outline(page(content, "model.keras"))
    for row in content.rows:
        assert row.name in parsed.cells
        assert f"{row.smallest:.1f}" in parsed.cells
        assert f"{row.uniform:.5f}" in parsed.cells
    assert f"{content.rows[0].position:.3f}" in parsed.cells
    assert "1 zero, 1 not finite" in parsed.cells
    assert "Neurons of model.keras" in parsed.cells
    assert any(cell.startswith("depthwise/kernel: ") for cell in parsed.cells)


def test_nothing_is_fetched_and_nothing_runs():
    parsed = outline(page(report(), "model.keras"))
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


def test_pictures_have_words():
    parsed = outline(page(report(), "model.keras"))
    texts = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(texts) == 3
    assert all(len(text) > 30 for text in texts)


def test_names_out_of_a_file_stay_names():
    # Half of the second is mathematics to matplotlib, which could not read it.
    name = "<b onclick=alert(1)>&'\" $\\frac{$"
    text = page(report(name), f"{name}.keras")
    assert name not in text
    assert name in outline(text).cells


def test_one_report_makes_one_page():
    content = report()
    assert page(content, "x") == page(content, "x")


def test_without_positions_or_directions():
    content = report(s=0, distance="angular", half_space=False)
    assert "-" in outline(page(content, "x")).cells
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros", name="d")]
    )
    zeros = energy_report(model)
    assert "3 zero" in outline(page(zeros, "x")).cells
    picture(zeros)


def test_the_worst_kernels_are_drawn_faults_first():
    content = report()
    assert [row.name for row in worst(content)] == ["head", "hidden"]
    assert picture(content).startswith(b"\x89PNG")


def browser_path():
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 768, 1600])
def test_in_a_browser(tmp_path, width):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "page.html"
    path.write_text(page(report("a_kernel_with_quite_a_long_name_" * 3), "model.keras"))
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"]
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        tab = browser.new_page(viewport={"width": width, "height": 800})
        said, asked = [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_load_state("networkidle")
        assert said == []
        assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
        # The page itself never scrolls sideways; what is wide scrolls in its own box.
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        boxes = "[...document.querySelectorAll('.wide, .tile, .grid img, h1, p, li')]"
        edges = tab.evaluate(f"{boxes}.map(box => box.getBoundingClientRect().right)")
        assert max(edges) <= width
        # Names of usual length stand on one line.
        lines = "[...document.querySelectorAll('tbody th span')].map(name => name.offsetHeight)"
        long, short = tab.evaluate(lines)
        assert short < 2 * 1.5 * 16 <= long
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        browser.close()
