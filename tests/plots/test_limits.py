"""A shared axis shows the data of all pictures that share it."""

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers

from keras_mhe import MHE, HalfSpaceMHE, energy_report
from keras_mhe.analysis import DriftReport, KernelChange
from keras_mhe.plots import energies_over_training, nearest_angles, neuron_turns, pair_curves
from keras_mhe.plots._limits import drawn_limits

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def report():
    dense = layers.Dense
    return energy_report(keras.Sequential([keras.Input((8,)), dense(40), dense(7), dense(3)]))


def row_near(report, angle):
    """A row whose neurons are within a degree of an angle, in full space."""
    angles = angle + np.linspace(-1, 1, report.rows[0].neurons)
    return report.rows[0]._replace(nearest_angles=angles, half_space=False)


def test_limits_are_unknown_before_something_is_drawn():
    figure = plt.figure()
    left, right = figure.subplots(1, 2, sharex=True)
    assert drawn_limits(left, "x") == []
    right.plot([3, 1])
    right.set_xlim(5, -1)
    assert drawn_limits(left, "x") == [-1, 5]
    assert drawn_limits(left, "y") == []


@pytest.mark.parametrize("order", list(itertools.permutations([5, 90, 170])))
def test_shared_axes_show_the_angles_of_all_neurons(report, order):
    axes = plt.figure().subplots(1, 3, sharex=True, sharey=True)
    for ax, angle in zip(axes, order, strict=True):
        nearest_angles(row_near(report, angle), ax=ax)
    start, end = axes[0].get_xlim()
    assert start <= 4
    assert end >= 171
    tallest = max(bar.get_height() for ax in axes for bar in ax.patches)
    assert axes[0].get_ylim()[1] > tallest


@pytest.mark.parametrize("angle", [0.0, 90.0])
def test_bars_at_the_ends_of_the_range_are_inside_the_frame(report, angle):
    row = report.rows[0]
    assert row.half_space
    ax = nearest_angles(row._replace(nearest_angles=np.full(row.neurons, angle)))
    start, end = ax.get_xlim()
    assert start < angle < end


@pytest.mark.parametrize("reverse", [False, True])
def test_shared_axes_show_all_turns_and_positions(report, reverse):
    def drift(turn, position):
        row = report.rows[0]._replace(position=position)
        return DriftReport(report, [KernelChange(row, row, np.full(row.neurons, turn))], {})

    drifts = [drift(3.0, 0.5), drift(150.0, 80.0), drift(20.0, -2.0)]
    axes = plt.figure().subplots(3, 2, sharex="col")
    for pair, each in zip(axes, drifts[::-1] if reverse else drifts, strict=True):
        neuron_turns(each, axes=pair)
    assert axes[0, 0].get_xlim()[1] > 150
    low, high = axes[0, 1].get_xlim()
    assert low < -2
    assert high > 80


@pytest.mark.parametrize("reverse", [False, True])
def test_shared_axes_show_all_positions_during_training(reverse):
    histories = [
        [{"step": step, "rows": [{"name": "a", "position": position}]} for step in (0, 1)]
        for position in (-3.0, 0.5, 50.0)
    ]
    axes = plt.figure().subplots(1, 3, sharey=True)
    for ax, history in zip(axes, histories[::-1] if reverse else histories, strict=True):
        energies_over_training(history, ax=ax)
    low, high = axes[0].get_ylim()
    assert low < -3
    assert high > 50


@pytest.mark.parametrize("order", [(MHE(), HalfSpaceMHE()), (HalfSpaceMHE(), MHE())])
def test_shared_axes_show_whole_curves_and_marks_up_to_the_end(order):
    axes = plt.figure().subplots(1, 2, sharex=True)
    for ax, regularizer in zip(axes, order, strict=True):
        pair_curves({"one": regularizer}, ax=ax)
    assert axes[0].get_xlim()[1] >= 180
    assert {90, 180} <= set(axes[0].get_xticks())
