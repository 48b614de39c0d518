"""Marks of positions are round numbers, and their labels do not overlap."""

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers

from keras_mhe import energy_report
from keras_mhe.analysis import Report
from keras_mhe.plots import energies_over_training, heat_strip
from keras_mhe.plots._marks import mark_positions

pytestmark = pytest.mark.once


def shown_labels(axis):
    """The labels inside the limits of an axis, as texts and boxes."""
    axis.axes.figure.canvas.draw()
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels = [tick.label2 if tick.label2.get_visible() else tick.label1 for tick in ticks]
    return [label.get_text() for label in labels], [label.get_window_extent() for label in labels]


def overlapping(boxes):
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("which", ["xaxis", "yaxis"])
@pytest.mark.parametrize("limits", [(-0.1, 3), (-0.1, 30), (-5, 1e6), (0, 1e11)])
@pytest.mark.parametrize("size", [(2, 1.5), (4, 3), (12, 9)])
def test_labels_do_not_overlap_and_include_1(which, limits, size):
    ax = plt.figure(figsize=size).add_subplot()
    ax.set(xscale=("symlog"), yscale="symlog", xlim=limits, ylim=limits)
    axis = getattr(ax, which)
    mark_positions(axis)
    texts, boxes = shown_labels(axis)
    assert not overlapping(boxes)
    assert "1" in texts
    assert [float(text) for text in texts] == pytest.approx(axis.get_majorticklocs())


def test_large_pictures_have_more_marks():
    counts = []
    for height in (1.5, 9):
        ax = plt.figure(figsize=(4, height)).add_subplot()
        ax.set(yscale="symlog", ylim=(0, 1000))
        mark_positions(ax.yaxis)
        counts.append(len(ax.get_yticks()))
    assert counts[0] < counts[1]
    assert {0, 0.5, 1, 2, 5, 10, 20, 50, 100} <= set(ax.get_yticks())


@pytest.fixture(scope="module")
def row():
    return energy_report(keras.Sequential([keras.Input((8,)), layers.Dense(4)])).rows[0]


def strip_of(row, positions, **options):
    rows = [row._replace(position=position) for position in positions]
    return heat_strip(Report(rows, {}), **options)


@pytest.mark.parametrize(
    "positions",
    [[0.7], [0.001, 1, 26, 82], [1.0] * 5, [None] * 3, [12345.0, None], [0.3, 82] * 30],
)
@pytest.mark.parametrize("size", [None, (4, 3), (3, 2.5)])
def test_labels_of_color_bars_do_not_overlap(row, positions, size):
    ax = size and plt.figure(figsize=size, layout="constrained").add_subplot()
    bar = strip_of(row._replace(layer="long_name_" * 4), positions, ax=ax).figure.axes[-1]
    texts, boxes = shown_labels(bar.yaxis)
    assert not overlapping(boxes)
    assert {"0", "1"} <= set(texts)


def test_labels_of_color_bars_are_beside_their_colors(row):
    ax = strip_of(row, [0.0, 0.5, 1.0, 10.0, 100.0])
    bar = ax.figure.axes[-1]
    texts, _ = shown_labels(bar.yaxis)
    [mesh] = [each for each in bar.collections if each.get_array() is not None]
    shades = np.ravel(mesh.get_array())
    for text, color in zip(
        ["0", "0.5", "1", "10", "100"], ax.images[0].get_array()[0], strict=True
    ):
        shade = bar.yaxis.get_majorticklocs()[texts.index(text)]
        expected = mesh.to_rgba(shades[np.argmin(np.abs(shades - shade))])
        np.testing.assert_allclose(color, expected, atol=0.03)


def test_negative_positions_during_training_are_inside_the_picture():
    rows = [[{"name": "a", "position": -3.0}, {"name": "b", "position": 40.0}]] * 2
    ax = energies_over_training([{"step": k, "rows": each} for k, each in enumerate(rows)])
    assert ax.get_ylim()[0] < -3
    assert "-1" in shown_labels(ax.yaxis)[0]
