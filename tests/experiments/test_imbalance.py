"""Long tails: optimizers differ in nothing but the optimizer, and older records say SGD."""

import json
from itertools import product
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

imbalance = pytest.importorskip("experiments.imbalance", reason="only a checkout has experiments")
classifiers = pytest.importorskip("experiments.classifiers")
comparison = pytest.importorskip("experiments.comparison")
records = pytest.importorskip("experiments.records")
tables = pytest.importorskip("experiments.tables")

results = Path(imbalance.__file__).parent / "results" / "imbalance.jsonl"
optimizers = tuple(classifiers.OPTIMIZERS)


class StartError(Exception):
    """Ends a run where training would begin."""


@pytest.fixture
def training(monkeypatch):
    """Returns a function from an optimizer and a variant to the model, images, labels at start."""

    def stop(model, x, y, **options):
        raise StartError(model, x, y)

    monkeypatch.setattr(keras.Model, "fit", stop)

    def start(optimizer, variant="baseline", rate=0.01):
        keras.utils.set_random_seed(3)
        config = {"data": "digits", "seed": 3, "passes": 2, "features": 4}
        with pytest.raises(StartError) as caught:
            imbalance.run(
                config | {"optimizer": optimizer, "rate": rate, "variant": variant}, "digits"
            )
        return caught.value.args

    return start


class TestOptimizers:
    def test_seeds_fix_initial_weights_and_batches(self, training):
        model, x, y = training("sgd")
        for optimizer, variant in product(optimizers, ("baseline", "position 1")):
            other, x_other, y_other = training(optimizer, variant)
            np.testing.assert_array_equal(x, x_other)
            np.testing.assert_array_equal(y, y_other)
            for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize("optimizer", optimizers)
    def test_weights_decay_by_l2_or_by_the_optimizer(self, training, optimizer):
        model, _, _ = training(optimizer)
        penalty = float(sum(model.losses))
        squares = sum(np.sum(np.square(w)) for w in model.get_weights() if w.ndim > 1)
        if optimizer == "adamw":
            assert penalty == 0
            assert model.optimizer.weight_decay > 0
        else:
            assert penalty == pytest.approx(5e-4 * squares, rel=1e-5)
            assert model.optimizer.weight_decay is None

    @pytest.mark.parametrize("optimizer", optimizers)
    def test_the_rate_of_the_config_decays_to_zero(self, training, optimizer):
        model, _, _ = training(optimizer, rate=0.25)
        assert type(model.optimizer).__name__.lower() == optimizer
        # Two passes of 8 batches.
        schedule = model.optimizer._learning_rate
        assert float(schedule(0)) == pytest.approx(0.25)
        assert float(schedule(16)) == pytest.approx(0, abs=1e-9)

    def test_an_unknown_optimizer_raises(self):
        with pytest.raises(ValueError, match=r"Optimizers are sgd, adam, adamw\. Received: none"):
            imbalance.run({"optimizer": "none"}, "digits")


class TestRecords:
    def test_records_without_an_optimizer_are_of_sgd(self, tmp_path):
        lines = results.read_text("utf-8").splitlines()
        old = [line for line in lines if "optimizer" not in json.loads(line)["config"]]
        assert old
        path = tmp_path / "imbalance.jsonl"
        path.write_text("".join(f"{line}\n" for line in old))
        found = records.read(path)
        assert len(found) == len(old)
        for record in found.values():
            config = record["config"]
            assert (config["optimizer"], config["rate"]) == ("sgd", 0.02)
            # The default config finds the run.
            grid = {part: values[0] for part, values in imbalance.experiment.grid.items()}
            assert records.record_key({**grid, **config}, "CPU") in found

    def test_runs_of_different_optimizers_or_rates_are_not_paired(self):
        path = results.with_name("optimizers.jsonl")
        pairs = comparison.comparisons(records.read(path).values(), imbalance.experiment.variants)
        assert {arm.condition["optimizer"] for arm, _ in pairs} == set(optimizers)
        for arm, baseline in pairs:
            assert arm.condition == baseline.condition
            assert len(arm.runs) == 10

    def test_a_metric_that_older_runs_lack_has_an_empty_cell(self):
        figures = dict.fromkeys(imbalance.experiment.main_metrics, 50.0)
        rows = [
            {
                "config": {"features": features, "variant": "baseline", "seed": 0},
                "figures": figures | ({"new": 1.0} if features == 8 else {}),
                "machine": {},
            }
            for features in (2, 8)
        ]
        table = tables.full_table(rows, imbalance.experiment)
        assert table.headings[-1] == "new"
        assert [row[-1] for row in table.rows] == ["", "1.00"]
