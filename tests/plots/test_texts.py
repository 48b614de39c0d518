"""Texts fit into their pictures, and say what half space and full space are."""

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers

from keras_mhe import MHE, HalfSpaceMHE, energy_report
from keras_mhe.analysis import DriftReport, KernelChange, Report
from keras_mhe.plots import (
    energies_over_training,
    heat_strip,
    nearest_angles,
    neuron_turns,
    neurons_on_circle,
    pair_curves,
)
from keras_mhe.plots._texts import capacity, space_text, wrapped

pytestmark = pytest.mark.once

HALF, FULL = "half space: mirror images", "full space: mirror images"


@pytest.fixture(scope="module")
def row():
    return energy_report(keras.Sequential([keras.Input((8,)), layers.Dense(4)])).rows[0]


def report_of(row, count, **values):
    """A report of as many kernels; the last one is in full space."""
    row = row._replace(half_space=True, **values)
    rows = [row] * (count - 1) + [row._replace(half_space=False)]
    return Report(rows, {})


def drift_of(report):
    changes = [KernelChange(row, row, np.full(row.neurons, 9.0)) for row in report.rows]
    return DriftReport(report, changes, {})


def test_space_text_names_the_spaces_that_occur():
    assert HALF in space_text([True, True])
    assert FULL in space_text([False])
    assert all(space in space_text([False, True]) for space in ("half space", "full space"))
    assert space_text([]) == ""


@pytest.mark.parametrize("size", [(4, 3), (8, 3)])
def test_wrapped_lines_are_not_wider_than_the_picture(size):
    ax = plt.figure(figsize=size).add_subplot()
    text = "what one line of a picture says is long enough for two of them at least. " * 2
    lines = wrapped(ax, f"{text}\nnext", 9)
    label = ax.set_title(lines, fontsize=9)
    assert label.get_window_extent().width <= ax.get_window_extent().width
    assert lines.replace("\n", " ") == f"{text}next"
    assert capacity(ax, 9) > capacity(ax, 18)


@pytest.mark.parametrize(("half_space", "text"), [(True, HALF), (False, FULL)])
def test_pictures_of_angles_explain_their_space(row, half_space, text):
    label = nearest_angles(row._replace(half_space=half_space)).get_xlabel()
    assert text in label.replace("\n", " ")


def test_strip_explains_half_space_and_marks_kernels_in_full_space(row):
    ax = heat_strip(report_of(row, 3))
    assert HALF in ax.get_title().replace("\n", " ")
    assert "dot: full space" in ax.get_title().replace("\n", " ")
    [dots] = ax.collections
    assert list(dots.get_offsets()[:, 0]) == [2]
    ax = heat_strip(Report([row._replace(half_space=False)], {}))
    assert FULL in ax.get_title()
    assert not ax.collections


def test_turns_explain_half_space_and_name_the_space_of_each_kernel(row):
    _, ax = neuron_turns(drift_of(report_of(row, 3)))
    assert HALF in ax.get_xlabel().replace("\n", " ")
    assert [text.get_text().strip() for text in ax.texts] == ["half", "half", "full"]
    _, ax = neuron_turns(drift_of(report_of(row, 1)))
    assert FULL in ax.get_xlabel().replace("\n", " ")
    assert not ax.texts


def test_training_explains_the_space_if_the_history_has_it(row):
    rows = [{"name": "a", "position": 0.5}]
    assert energies_over_training([{"step": 0, "rows": rows}]).get_xlabel() == "training step"
    rows = [{**rows[0], "half_space": True}]
    label = energies_over_training([{"step": 0, "rows": rows}]).get_xlabel()
    assert HALF in label.replace("\n", " ")


def test_training_names_the_space_of_each_kernel_if_a_history_has_both():
    rows = [{"name": n, "position": 0.5, "half_space": n == "a"} for n in "ab"]
    ax = energies_over_training([{"step": 0, "rows": rows}])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a (half)", "b (full)"]
    assert "full space: as two" in ax.get_xlabel().replace("\n", " ")


def test_pair_curves_explain_half_space():
    assert HALF in pair_curves({"half": HalfSpaceMHE()}).get_xlabel()
    assert "space" not in pair_curves({"full": MHE()}).get_xlabel()


def test_pair_curves_have_all_names_in_the_legend():
    """matplotlib omits names that begin with an underscore, and parses formulas."""
    ax = pair_curves({"_a": MHE(), "$\\frac{$": MHE(2.0)})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["_a", "$\\frac{$"]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(("count", "size"), [(1, (4, 3)), (5, (4, 3)), (60, (4, 3)), (60, (14, 3))])
def test_names_below_strips_do_not_overlap_and_titles_are_whole(row, count, size):
    ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    heat_strip(report_of(row, count, layer="long_name_" * 6, position=None, zero=1), ax=ax)
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    title = ax.title.get_window_extent()
    assert ax.figure.bbox.contains(title.x0, title.y0)
    assert ax.figure.bbox.contains(title.x1, title.y1)


@pytest.mark.parametrize("size", [(4, 3), (9, 3)])
def test_labels_beside_turns_do_not_overlap(row, size):
    axes = plt.figure(figsize=size, layout="constrained").subplots(1, 2)
    left, right = neuron_turns(drift_of(report_of(row, 3)), axes=axes)
    left.figure.canvas.draw()
    [title] = left.findobj(lambda each: getattr(each, "get_text", str)().startswith("bar:"))
    legend = right.get_legend()
    below = left.xaxis.label, right.xaxis.label
    for one, other in ((title, legend), below):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_values_between_unknown_ones_have_a_mark(row):
    def history(*positions):
        return [
            {"step": step, "rows": [{"name": "a", "position": position}]}
            for step, position in enumerate(positions)
        ]

    def marks(*positions):
        line = energies_over_training(history(*positions)).lines[-1]
        return line.get_markevery() if line.get_marker() == "." else []

    assert marks(0.5) == [0]
    assert marks(None, 0.5, None, 0.2, 0.3) == [1]
    assert marks(0.5, 0.4) == []


@pytest.mark.filterwarnings("error")
def test_training_without_any_value_says_unknown():
    rows = [{"name": "a", "position": None}]
    ax = energies_over_training([{"step": 0, "rows": rows}])
    assert [text.get_text() for text in ax.texts] == ["unknown"]
    # Steps are integers.
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_long_names_of_neurons_are_in_flat_boxes():
    ax = neurons_on_circle(np.eye(2), names=["a", "aeroplane $"])
    ax.figure.canvas.draw()
    box = ax.texts[1].get_bbox_patch().get_window_extent()
    assert box.height < box.width / 2
