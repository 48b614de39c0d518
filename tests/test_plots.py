"""Pictures show what they are given, and refuse what they cannot show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from keras_mhe import MHE, MHS
from keras_mhe.plots import neurons_on_sphere, pair_curves


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_a_line_and_a_name_for_each_neuron():
    ax = neurons_on_sphere(5 * np.eye(3), names="xyz")
    tips = np.array([np.array(line.get_data_3d())[:, 1] for line in ax.lines])
    np.testing.assert_allclose(tips, np.eye(3))
    assert [text.get_text() for text in ax.texts] == ["x", "y", "z"]


def test_features_lie_on_the_sphere_in_the_colour_of_their_neuron():
    labels = np.array([0, 1, 2, 0])
    features = np.random.default_rng(0).standard_normal((4, 3))
    ax = neurons_on_sphere(np.eye(3), features, labels)
    ax.figure.canvas.draw()
    points = ax.collections[-1]
    np.testing.assert_allclose(np.linalg.norm(points._offsets3d, axis=0), 1)
    lines = [tuple(line.get_color()[:3]) for line in ax.lines]
    assert sorted(tuple(c[:3]) for c in points.get_facecolor()) == sorted(lines[k] for k in labels)


def test_what_lies_behind_is_faint():
    ax = neurons_on_sphere(np.array([[1.0, -1.0], [0, 0], [0, 0]]), view=(0, 0))
    front, back = (line.get_alpha() for line in ax.lines)
    assert front == 1
    assert back < 0.5


def test_draws_where_it_is_told():
    ax = plt.figure().add_subplot(projection="3d")
    assert neurons_on_sphere(np.eye(3), ax=ax) is ax


def test_more_neurons_than_colours():
    assert len(neurons_on_sphere(np.random.default_rng(0).standard_normal((3, 25))).texts) == 25


@pytest.mark.parametrize(
    ("neurons", "features", "words"),
    [
        (np.ones((2, 5)), None, r"neurons\.shape=\(2, 5\)"),
        (np.ones(3), None, r"neurons\.shape=\(3,\)"),
        (np.ones((3, 5)), np.ones((7, 2)), r"features\.shape=\(7, 2\)"),
    ],
)
def test_other_dimensions_are_refused(neurons, features, words):
    with pytest.raises(ValueError, match=words):
        neurons_on_sphere(neurons, features)


def test_curves_of_pairs_meet_at_45_degrees_and_end_at_zero():
    ax = pair_curves({"MHE": MHE(softening=0), "MHS": MHS(1.0)})
    assert [line.get_label() for line in ax.lines] == ["MHE", "MHS"]
    for line, f in zip(ax.lines, (lambda x: 1 / x, lambda x: -x), strict=True):
        angles, values = line.get_data()
        square = 2 - 2 * np.cos(np.radians(angles))
        at_45 = f(2 - np.sqrt(2)) - f(4)
        np.testing.assert_allclose(values, (f(square) - f(4)) / at_45, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{"regularizers": {}}, {"farthest": 30}, {"farthest": 200}])
def test_curves_of_nothing_or_beyond_the_sphere_are_refused(options):
    with pytest.raises(ValueError, match="Received"):
        pair_curves(**{"regularizers": {"MHE": MHE()}, **options})
