"""Small classifiers: how they are trained."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

classifiers = pytest.importorskip(
    "experiments.classifiers", reason="only a checkout has experiments"
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", keras.optimizers.SGD),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
    ],
)
def test_the_rate_of_each_optimizer_falls_to_zero(name, expected):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    x, y = np.random.default_rng(0).normal(size=(8, 2)), np.arange(8) % 2
    classifiers.fit(model, x, y, seed=0, passes=2, batch=4, rate=0.5, optimizer=name)
    assert type(model.optimizer) is expected
    assert getattr(model.optimizer, "momentum", 0.9) == 0.9
    schedule = model.optimizer._learning_rate
    assert [float(schedule(step)) for step in (0, 2, 4)] == pytest.approx([0.5, 0.25, 0], abs=1e-6)


def test_unknown_optimizers_raise():
    with pytest.raises(ValueError, match=r"Optimizers are sgd, adam, adamw\. Received: other"):
        classifiers.fit(None, np.zeros((4, 2)), np.zeros(4), 0, 1, batch=4, optimizer="other")
