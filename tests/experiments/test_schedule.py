"""The learning rate: the papers' boundaries and the warm-up."""

import pytest

pytestmark = pytest.mark.once

schedule = pytest.importorskip("experiments.schedule", reason="only a checkout has experiments")


def test_the_learning_rate_follows_the_schedule_of_the_papers():
    rate_of = schedule.StepDecay(0.1, 42_500)
    for step, rate in ((20_000, 0.1), (20_001, 0.01), (30_001, 1e-3), (37_501, 1e-4)):
        assert float(rate_of(step)) == pytest.approx(rate)


def test_a_warm_up_rises_linearly_to_the_rate_and_changes_nothing_after_it():
    rate_of = schedule.StepDecay(0.1, 42_500, warmup=500)
    for step, rate in ((0, 0.1 / 500), (249, 0.05), (499, 0.1), (500, 0.1), (20_001, 0.01)):
        assert float(rate_of(step)) == pytest.approx(rate)


def test_a_config_gives_the_same_schedule():
    config = schedule.StepDecay(0.1, 1000, warmup=10).get_config()
    again = schedule.StepDecay.from_config(config)
    assert float(again(4)) == pytest.approx(0.05)
