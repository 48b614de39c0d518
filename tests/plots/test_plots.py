"""Plots show the given data, and raise clear errors for data that they cannot show."""

import functools
import io
import itertools

import keras
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import MHE, MHS, EnergyMonitor, HalfSpaceMHE, energy_report
from keras_mhe.analysis import DriftReport, KernelChange, Report
from keras_mhe.plots import (
    energies_over_training,
    heat_strip,
    nearest_angles,
    neuron_turns,
    neurons_on_circle,
    neurons_on_sphere,
    pair_curves,
)
from keras_mhe.reference import nearest_angle_density

pytestmark = pytest.mark.once


def test_sphere_has_a_line_and_a_name_for_each_neuron():
    ax = neurons_on_sphere(5 * np.eye(3), names="xyz")
    tips = np.array([np.array(line.get_data_3d())[:, 1] for line in ax.lines])
    np.testing.assert_allclose(tips, np.eye(3))
    assert [text.get_text() for text in ax.texts] == ["x", "y", "z"]


def test_features_on_the_sphere_have_the_color_of_their_neuron():
    labels = np.array([0, 1, 2, 0])
    features = np.random.default_rng(0).standard_normal((4, 3))
    ax = neurons_on_sphere(np.eye(3), features, labels)
    ax.figure.canvas.draw()
    points = ax.collections[-1]
    np.testing.assert_allclose(np.linalg.norm(points._offsets3d, axis=0), 1)
    lines = [tuple(line.get_color()[:3]) for line in ax.lines]
    assert sorted(tuple(c[:3]) for c in points.get_facecolor()) == sorted(lines[k] for k in labels)


def test_neurons_behind_the_sphere_are_transparent():
    ax = neurons_on_sphere(np.array([[1.0, -1.0], [0, 0], [0, 0]]), view=(0, 0))
    front, back = (line.get_alpha() for line in ax.lines)
    assert front == 1
    assert back < 0.5


def test_sphere_uses_the_given_axes():
    ax = plt.figure().add_subplot(projection="3d")
    assert neurons_on_sphere(np.eye(3), ax=ax) is ax


def test_sphere_on_two_dimensional_axes_raises_a_clear_error():
    with pytest.raises(ValueError, match="three dimensions"):
        neurons_on_sphere(np.eye(3), ax=plt.figure().add_subplot())


def test_sphere_accepts_more_neurons_than_colors():
    assert len(neurons_on_sphere(np.random.default_rng(0).standard_normal((3, 25))).texts) == 25


@pytest.mark.parametrize(
    ("neurons", "features", "message"),
    [
        (np.ones((2, 5)), None, r"neurons\.shape=\(2, 5\)"),
        (np.ones(3), None, r"neurons\.shape=\(3,\)"),
        (np.ones((3, 5)), np.ones((7, 2)), r"features\.shape=\(7, 2\)"),
    ],
)
def test_sphere_of_other_shapes_raises_a_clear_error(neurons, features, message):
    with pytest.raises(ValueError, match=message):
        neurons_on_sphere(neurons, features)


def test_pair_curves_are_one_at_45_degrees_and_zero_at_the_end():
    ax = pair_curves({"MHE": MHE(softening=0), "MHS": MHS(1.0)})
    assert [line.get_label() for line in ax.lines] == ["MHE", "MHS"]
    for line, f in zip(ax.lines, (lambda x: 1 / x, lambda x: -x), strict=True):
        angles, values = line.get_data()
        square = 2 - 2 * np.cos(np.radians(angles))
        at_45 = f(2 - np.sqrt(2)) - f(4)
        np.testing.assert_allclose(values, (f(square) - f(4)) / at_45, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("regularizer", "farthest"), [(MHE(), 180), (HalfSpaceMHE(), 90)])
def test_pair_curves_end_at_the_largest_angle_of_the_space(regularizer, farthest):
    [line] = pair_curves({"one": regularizer}).lines
    angles, values = line.get_data()
    assert angles[-1] == farthest
    assert np.argmin(values) == len(values) - 1


@pytest.mark.parametrize("options", [{"regularizers": {}}, {"farthest": 30}, {"farthest": 200}])
def test_pair_curves_without_regularizers_or_with_invalid_angles_raise_a_clear_error(options):
    with pytest.raises(ValueError, match="Received"):
        pair_curves(**{"regularizers": {"MHE": MHE()}, **options})


def test_circle_has_a_line_and_a_name_for_each_neuron():
    ax = neurons_on_circle(5 * np.eye(2), names="xy")
    circle, *lines = (np.array(line.get_data()) for line in ax.lines)
    np.testing.assert_allclose(np.linalg.norm(circle, axis=0), 1)
    np.testing.assert_allclose([line[:, 1] for line in lines], np.eye(2))
    assert [text.get_text() for text in ax.texts] == ["x", "y"]


def test_features_on_the_circle_are_scaled_and_have_the_color_of_their_neuron():
    features = np.array([[3.0, 0], [0, 4], [0, -1]])
    ax = neurons_on_circle(np.eye(2), features, [0, 1, 0])
    [points] = ax.collections
    np.testing.assert_allclose(points.get_offsets(), features / 4)
    lines = [mpl.colors.to_rgb(line.get_color()) for line in ax.lines[1:]]
    assert [tuple(c[:3]) for c in points.get_facecolor()] == [lines[k] for k in (0, 1, 0)]


def test_circle_of_three_coordinates_raises_a_clear_error():
    with pytest.raises(ValueError, match=r"neurons\.shape=\(3, 4\)"):
        neurons_on_circle(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"features\.shape=\(5, 3\)"):
        neurons_on_circle(np.ones((2, 4)), np.ones((5, 3)))


def network(*sizes):
    return keras.Sequential(
        [keras.Input((8,)), *(layers.Dense(n, name=f"d{i}") for i, n in enumerate(sizes))]
    )


@pytest.fixture
def report():
    model = network(40, 7, 3)
    value = normals(40, 7)
    value[:, 2] = 0
    model.get_layer("d1").kernel.assign(value)
    return energy_report(model)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_nearest_angles_have_a_histogram_and_the_density_of_random_neurons(report, index):
    row = report.rows[index]
    ax = nearest_angles(row)
    [line] = ax.lines
    grid, density = line.get_data()
    half = row.half_space
    expected = nearest_angle_density(grid, row.neurons, row.dimension, half_space=half)
    np.testing.assert_allclose(density, expected)
    area = sum(bar.get_width() * bar.get_height() for bar in ax.patches)
    assert area == pytest.approx(1)
    # The axis covers the angles of all neurons.
    start, end = ax.get_xlim()
    assert start <= row.nearest_angle_min <= row.nearest_angle_max <= end
    assert ax.get_title() == row.name


def test_nearest_angles_can_all_be_equal():
    model = keras.Sequential([keras.Input((9,)), layers.Dense(6, kernel_initializer="orthogonal")])
    assert nearest_angles(energy_report(model, half_space=True).rows[0]).patches


def test_nearest_angles_of_zero_neurons_raise_a_clear_error(report):
    row = report.rows[0]._replace(nearest_angles=np.full(40, np.nan))
    with pytest.raises(ValueError, match="Received: row=d0"):
        nearest_angles(row)


def test_other_objects_than_reports_raise_a_clear_error(report):
    with pytest.raises(TypeError, match="Received: row=Report"):
        nearest_angles(report)
    with pytest.raises(TypeError, match="Received: report=Sequential"):
        heat_strip(network(3))
    with pytest.raises(TypeError, match="Received: report=Report"):
        neuron_turns(report)


def test_strip_has_a_cell_for_each_kernel_and_crosses_for_faulty_neurons(report):
    ax = heat_strip(report)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["d0", "d1", "d2"]
    [image] = ax.images
    assert image.get_array().shape == (1, 3, 4)
    [crosses] = ax.lines
    assert list(crosses.get_xdata()) == [1]


def test_strip_is_white_at_position_one_violet_below_orange_above_and_gray_if_unknown(report):
    positions = [0.0, 1.0, 2.0, 40.0, None]
    report.rows = [report.rows[0]._replace(position=position) for position in positions]
    violet, white, pale, orange, gray = heat_strip(report).images[0].get_array()[0, :, :3]
    assert white.min() > 0.95
    assert violet[2] > violet[1]
    assert orange[0] > orange[2]
    assert orange.mean() < pale.mean() < white.mean()
    np.testing.assert_allclose(gray, 0.6)


@pytest.fixture
def drift():
    """Three changes; the first kernel did not change, and the neurons of the last one vanished."""
    keras.utils.set_random_seed(0)
    before, after = network(40, 7, 3), network(40, 7, 3)
    after.get_layer("d0").set_weights(before.get_layer("d0").get_weights())
    after.get_layer("d2").kernel.assign(np.zeros((7, 3)))
    return energy_report(after, against=before)


def test_turns_of_each_kernel_are_quantiles_in_degrees(drift):
    ax, _ = neuron_turns(drift)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["d0", "d1", "d2"]
    turns = drift.changes[1].turns
    thin, thick = (lines.get_segments()[1] for lines in ax.collections)
    np.testing.assert_allclose(thin[:, 0], np.percentile(turns, [5, 95]))
    np.testing.assert_allclose(thick[:, 0], np.percentile(turns, [25, 75]))
    ends, medians = (line.get_xdata() for line in ax.lines)
    np.testing.assert_allclose(ends[[1, 4]], [turns.min(), turns.max()])
    np.testing.assert_allclose(medians, [0, np.median(turns), np.nan])
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("unknown", (0, 2))]


def test_positions_before_and_after_are_beside_the_turns(drift):
    turns, ax = neuron_turns(drift)
    assert turns.get_ylim() == ax.get_ylim()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    _, before, *others = (points.get_offsets() for points in ax.collections)
    expected = [each.before.position for each in drift.changes]
    np.testing.assert_allclose(before[:, 0], expected)
    after = {int(y): x for points in others for x, y in points}
    assert after == {y: pytest.approx(drift.changes[y].after.position) for y in (0, 1)}
    moved = "after: lower" if drift.changes[1].change("position") < 0 else "higher"
    assert legend == ["before", moved, "equal"]


def test_large_positions_have_a_symlog_scale(drift):
    assert neuron_turns(drift)[1].get_xscale() == "linear"
    first = drift.changes[0]
    first = first._replace(after=first.after._replace(position=300.0))
    ax = neuron_turns(DriftReport(drift, [first], {}))[1]
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[1] > 300


@pytest.mark.parametrize("count", [1, 10, 60])
def test_names_beside_turns_do_not_overlap(drift, count):
    changes = [
        each._replace(after=each.after._replace(layer=f"{k}_{'long_' * 12}"))
        for k, each in enumerate(drift.changes[:1] * count)
    ]
    ax, right = neuron_turns(DriftReport(drift, changes, {}))
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    # The legend begins to the right of the title beside it.
    [title] = [text for text in ax.findobj(mpl.text.Text) if text.get_text().startswith("bar:")]
    assert title.get_window_extent().x1 < right.get_legend().get_window_extent().x0


@functools.cache
def monitored_training(*sizes):
    model, monitor = network(*sizes), EnergyMonitor()
    model.compile("sgd", "mse")
    x, y = normals(16, 8), normals(16, sizes[-1])
    model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=[monitor])
    return monitor


@pytest.mark.parametrize(
    "value", ["position", "energy", "nearest_angle_min", "nearest_angle_mean", "nearest_angle_max"]
)
def test_training_plot_has_a_line_for_each_kernel(value):
    monitor = monitored_training(6, 4)
    ax = energies_over_training(monitor, value)
    lines = {line.get_label(): line.get_data() for line in ax.lines}
    for i in range(2):
        steps, numbers = lines[f"d{i}"]
        assert list(steps) == [0, 2, 4, 6]
        assert list(numbers) == [record["rows"][i][value] for record in monitor.history]


def test_names_in_pictures_are_escaped_and_complete(report):
    """matplotlib omits names that begin with an underscore, and cannot draw a line break."""
    names = ["_a", "a\x1b\nb", "$\\frac{$"]
    rows = [{"name": name, "position": 0.5} for name in names]
    ax = energies_over_training([{"step": 0, "rows": rows}, {"step": 1, "rows": rows}])
    shown = ["_a", r"a\x1b\x0ab", "$\\frac{$"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == shown
    ax.figure.savefig(io.BytesIO())
    renamed = Report([report.rows[0]._replace(layer=name) for name in names], {})
    ax = heat_strip(renamed)
    assert [text.get_text() for text in ax.get_xticklabels()] == shown
    for row, name in zip(renamed.rows, shown, strict=True):
        assert nearest_angles(row).get_title() == name
    changes = [KernelChange(row, row, None) for row in renamed.rows]
    ax, _ = neuron_turns(DriftReport(renamed, changes, {}))
    assert [text.get_text() for text in ax.get_yticklabels()] == shown
    ax.figure.savefig(io.BytesIO())


def test_training_plot_of_a_deep_model_has_colors_instead_of_a_legend():
    ax = energies_over_training(monitored_training(*[4] * 12).history)
    assert ax.get_legend() is None
    assert len({line.get_color() if isinstance(line.get_color(), str) else tuple(line.get_color())
                for line in ax.lines}) == 13  # fmt: skip


def test_training_plot_with_large_positions_has_a_symlog_scale():
    near = {"step": 0, "rows": [{"name": "a", "position": 0.5}]}
    far = {"step": 1, "rows": [{"name": "a", "position": 50.0}]}
    assert energies_over_training([near]).get_yscale() == "linear"
    ax = energies_over_training([near, far])
    assert ax.get_yscale() == "symlog"
    # A second plot on the same axes does not reduce their range.
    energies_over_training([near, {**far, "rows": [{"name": "a", "position": 5.0}]}], ax=ax)
    assert ax.get_ylim()[1] > 50


def test_training_plot_of_unrecorded_values_raises_a_clear_error():
    with pytest.raises(ValueError, match="Received: value='speed'"):
        energies_over_training(EnergyMonitor(), "speed")
    with pytest.raises(ValueError, match="The history has no records"):
        energies_over_training(EnergyMonitor())


@pytest.mark.parametrize("plot", ["angles", "strip", "circle", "training"])
def test_other_plots_use_the_given_axes(report, plot):
    ax = plt.figure().add_subplot()
    plots = {
        "angles": lambda: nearest_angles(report.rows[0], ax=ax),
        "strip": lambda: heat_strip(report, ax=ax),
        "circle": lambda: neurons_on_circle(np.eye(2), ax=ax),
        "training": lambda: energies_over_training(monitored_training(6, 4), ax=ax),
    }
    assert plots[plot]() is ax


def test_turns_use_the_given_axes(drift):
    axes = plt.figure().subplots(1, 2)
    assert neuron_turns(drift, axes=axes) == tuple(axes)
