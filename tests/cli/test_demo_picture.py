"""The picture of the demo: the drawn angle is the true one, and the rare classes are named."""

import matplotlib as mpl
import numpy as np
import pytest
from helpers import normals
from matplotlib.patches import Polygon

from keras_mhe.cli import _demo_picture as picture

pytestmark = pytest.mark.once

NAMES = list("abcdefghij")
COUNTS = [90, 80, 70, 60, 50, 40, 30, 5, 3, 2]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=0)


def draw(*kernels):
    panels = [picture.Panel(f"network {k}", kernel, "text") for k, kernel in enumerate(kernels)]
    return picture.draw_class_vectors(panels, NAMES, COUNTS, "note")


def angle_between(p, q):
    return np.degrees(np.arccos(p @ q / np.linalg.norm(p) / np.linalg.norm(q)))


def test_closest_pair_has_the_smallest_of_all_angles():
    vectors = unit(normals(3, 10))
    angles = {(i, j): angle_between(vectors[:, i], vectors[:, j])
              for j in range(10) for i in range(j)}  # fmt: skip
    expected = min(angles, key=angles.get)
    first, second, angle = picture.closest_pair(vectors)
    assert (first, second) == expected
    assert angle == pytest.approx(angles[expected])


@pytest.mark.parametrize("seed", range(5))
def test_view_is_a_rotation_with_the_closest_pair_at_the_top_at_nearly_its_angle(seed):
    vectors = unit(np.random.default_rng(seed).standard_normal((3, 10)))
    view = picture.view_of(vectors)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    # A mirror image would show another arrangement.
    assert np.linalg.det(view) == pytest.approx(1)
    first, second, angle = picture.closest_pair(vectors)
    tips = (view @ vectors)[:2]
    assert angle_between(tips[:, first], tips[:, second]) == pytest.approx(angle, rel=0.03)
    assert min(tips[1, first], tips[1, second]) > 0


def test_each_panel_writes_its_smallest_angle_and_draws_it_as_a_wedge():
    kernels = 5 * normals(3, 10), np.random.default_rng(1).standard_normal((3, 10))
    axes = draw(*kernels).axes
    for ax, kernel in zip(axes, kernels, strict=True):
        angle = picture.closest_pair(unit(kernel))[2]
        assert f"smallest angle {angle:.0f}°" in [text.get_text() for text in ax.texts]
        [wedge] = [patch for patch in ax.patches if isinstance(patch, Polygon)]
        corners = wedge.get_xy()
        assert angle_between(corners[1], corners[61]) == pytest.approx(angle, rel=0.03)


def test_rare_classes_are_named_and_have_their_own_colors():
    figure = draw(normals(3, 10), normals(3, 10))
    [legend] = figure.legends
    named = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert list(named) == ["digit h: 5 images", "digit i: 3 images", "digit j: 2 images",
                           "others: 30 to 90"]  # fmt: skip
    assert len(set(named.values())) == 4
    # Colors behind are lighter, but of the same hue.
    for ax in figure.axes:
        texts = [text.get_text() for text in ax.texts[:10]]
        assert texts == NAMES
        grays = [np.ptp(mpl.colors.to_rgb(line.get_color())) < 0.01 for line in ax.lines[::2]]
        assert grays == [True] * 7 + [False] * 3


def test_texts_lie_inside_the_picture_and_do_not_overlap():
    figure = draw(normals(3, 10), normals(3, 10))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [figure.legends[0].get_window_extent()]
    boxes += [text.get_window_extent() for ax in figure.axes for text in ax.texts[10:]]
    assert len(boxes) == 8
    for k, box in enumerate(boxes):
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)
        assert not any(box.overlaps(other) for other in boxes[:k])
