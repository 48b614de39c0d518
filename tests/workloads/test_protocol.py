"""The loss of the papers' programs: the values of their logs, a bound, and vanishing gradients."""

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient

pytestmark = pytest.mark.once

protocol = pytest.importorskip("workloads.protocol", reason="only a checkout has experiments")
LABELS = np.arange(128) % 100


def confident(correct):
    """Returns logits of 128 confident predictions, of which the first `correct` ones are right."""
    classes = np.where(np.arange(128) < correct, LABELS, (LABELS + 1) % 100)
    return 1e3 * np.eye(100, dtype="float32")[classes]


@pytest.mark.parametrize(
    ("correct", "logged"), [(0, 9.2094), (1, 9.1382), (2, 9.0669), (3, 8.9957), (4, 8.9245)]
)
def test_batches_of_confident_predictions_have_the_loss_of_the_papers_logs(correct, logged):
    """Their first 2,000 steps have these values, with accuracies of 0 to 4 of 128."""
    loss = protocol.BoundedCrossEntropy()(LABELS, confident(correct))
    assert float(loss) == pytest.approx(logged, abs=5e-5)


def test_moderate_logits_have_the_gradient_of_cross_entropy_and_confident_errors_none():
    bounded = protocol.BoundedCrossEntropy()
    exact = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits = np.random.default_rng(0).standard_normal((128, 100)).astype("float32")
    ours, theirs = (
        value_and_gradient(lambda x, loss=loss: loss(LABELS, x), logits)[1]
        for loss in (bounded, exact)
    )
    cosine = np.sum(ours * theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.99
    _, gradient = value_and_gradient(lambda x: bounded(LABELS, x), confident(0))
    assert np.abs(gradient).max() < 1e-6
