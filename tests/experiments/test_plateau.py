"""The plateau of the papers' loss: when a network counts as one that learns."""

import keras
import pytest

pytestmark = pytest.mark.once

plateau = pytest.importorskip("experiments.plateau", reason="only a checkout has experiments")


def test_training_stops_after_the_first_window_with_twice_the_accuracy_of_chance():
    stop = plateau._StopWhenItLearns(0.2)
    stop.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    stop.model.stop_training = False
    for epoch, accuracy in enumerate((0.1, 0.19)):
        stop.on_epoch_end(epoch, {"accuracy": accuracy})
        assert not stop.model.stop_training
    stop.on_epoch_end(2, {"accuracy": 0.2})
    assert stop.model.stop_training
    assert stop.steps == 3 * plateau._WINDOW
