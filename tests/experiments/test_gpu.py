"""The queue of experiments for a GPU: order, time, resuming, failures and cards.

Most tests simulate a card: runs take the seconds of a model of its speed, on a clock of its own.
"""

import importlib
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

pytestmark = pytest.mark.once

gpu = pytest.importorskip("experiments.gpu", reason="only a checkout has experiments")
calibration, cnn9, durations, gpu_list, records, runner, tables = (
    importlib.import_module(f"experiments.{name}")
    for name in ("calibration", "cnn9", "durations", "gpu_list", "records", "runner", "tables")
)

H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"


class Card:
    """A simulated machine with a card, and its clock."""

    def __init__(self, name=H100, step=0.002, **machine):
        self.now, self.step, self.configs = 0.0, step, []
        self.machine = {"accelerator": name, "backend": "jax", "versions": {"jax": "1"}} | machine
        # Errors that runs raise, and accuracies, by functions of the config.
        self.error = lambda config: None
        self.accuracy = lambda config: 50 + config["seed"] % 1000 + 10 * config.get("rate", 0)

    def seconds(self, config):
        return 30 + config.get("steps", 10_000) * self.step * (config.get("width", 64) / 64) ** 2

    def run(self, config, sources):
        self.configs.append(config)
        if error := self.error(config):
            raise error
        self.now += self.seconds(config)
        return {
            "config": config,
            "figures": {"accuracy %": self.accuracy(config)},
            "seconds": self.seconds(config),
            "date": "2026-11-27",
            "machine": self.machine,
        }


@pytest.fixture
def work(monkeypatch, tmp_path):
    """Runs the queue on a simulated card; returns what it returns, and what it printed."""

    def run(card, minutes=1e6, out=tmp_path, quick=False):
        monkeypatch.setattr(gpu, "run_config", card.run)
        monkeypatch.setattr(gpu, "describe_machine", lambda: card.machine)
        monkeypatch.setattr(gpu, "load_images", lambda source: None)
        monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: card.now))
        console = Console(file=io.StringIO(), width=200)
        succeeded = gpu.run(minutes, "cifar10", out, quick, console, card.now)
        return succeeded, console.file.getvalue()

    return run


def results(folder):
    """Configs and figures of all files."""
    return {
        path.name: [
            (record["config"], record["figures"])
            for record in map(json.loads, path.read_text().splitlines())
        ]
        for path in sorted(folder.glob("*.jsonl"))
    }


class TestOrder:
    def test_trials_come_first_and_then_all_seeds_of_a_variant_before_the_next(self, work):
        card = Card()
        assert work(card)[0]
        trials, configs = card.configs[:2], card.configs[2:]
        assert trials == calibration.trials("cifar10", quick=False)
        variants = ["baseline", "half-space MHE s=2", "position 0.1 (hidden)"]
        started = [(c["loss"], c["warmup"], c["variant"], c["seed"]) for c in configs[:18]]
        assert started == [
            (*parts, variant, seed)
            for parts in (("cross-entropy", 500), ("bounded", 0))
            for variant in variants
            for seed in range(3)
        ]
        parts = [(c["experiment"], c.get("imbalance"), c.get("width")) for c in configs[18:]]
        assert list(dict.fromkeys(parts)) == [
            ("cnn9", None, 64),
            ("imbalanced_cnn9", "multiple", 64),
            ("imbalanced_cnn9", "single", 64),
            *(("cnn9", None, width) for width in (16, 32, 128, 256)),
            ("resnet32", None, 64),
            ("crowding", None, None),
        ]

    def test_every_variant_has_a_baseline_before_it(self):
        setting, baselines = gpu_list.Setting(0.1, 0, 42_500), set()
        for group in gpu_list.GROUPS:
            for config in gpu_list.configs(group, "cifar10", setting, quick=False):
                condition = records.config_key(config | {"variant": ""})
                if config["variant"] == "baseline":
                    baselines.add(condition)
                assert condition in baselines

    @pytest.mark.parametrize("group", [*gpu_list.GROUPS, *gpu_list.QUICK_GROUPS])
    def test_experiments_have_the_variants(self, group):
        shape = importlib.import_module(f"experiments.{group.experiment}").experiment
        assert set(group.variants) <= set(shape.variants)


class TestTime:
    @pytest.mark.parametrize("minutes", [1, 3, 12, 20])
    def test_no_run_ends_after_the_limit(self, work, minutes):
        card = Card()
        work(card, minutes)
        assert card.now <= 60 * minutes
        # 115 s a run: nothing was waiting that would have fitted.
        assert 60 * minutes - card.now < 120

    def test_a_run_that_does_not_fit_makes_room_for_a_shorter_one(self, work):
        """The trials take 75 s, a run of full width 115 s, and one of a quarter of it 35 s."""
        card = Card()
        work(card, minutes=2.5)
        assert [config["width"] for config in card.configs[2:]] == [16, 16]

    def test_twelve_minutes_of_a_card_that_was_calibrated_give_six_full_runs(self, work):
        work(Card(), minutes=2)
        card = Card(step=0.0018)
        work(card, minutes=12)
        assert [(c["width"], c["steps"]) for c in card.configs[:6]] == [(64, 42_500)] * 6

    def test_what_the_time_was_spent_on_and_what_is_next_is_printed(self, work):
        card = Card()
        _, printed = work(card, minutes=12)
        assert (
            "Rate 0.1, warm-up of 500 steps, 42500 steps, where the list has no others." in printed
        )
        minutes = f"{card.now / 60:.2f}"
        assert (
            f"Minutes: start 0.00, compiling 0.00, runs {minutes}, rest 0.00, in all {minutes}."
            in printed
        )
        assert "Next: cnn9, half-space MHE s=2, seed 2, about 115 s" in printed


class TestEstimates:
    config = gpu_list.configs(
        gpu_list.GROUPS[0], "cifar10", gpu_list.Setting(0.1, 0, 42_500), False
    )[0]

    def record(self, seconds, compiling=0.0, **parts):
        return {
            "config": self.config | parts,
            "seconds": seconds,
            "compile_seconds": compiling,
        }

    def test_the_longest_run_of_the_variant_counts_then_that_of_any_variant(self):
        """Seeds, rates and the images do not matter."""
        done = [
            self.record(70.0, seed=1),
            self.record(80.0, seed=2, rate=0.01, warmup=500),
            self.record(99.0, variant="MHS"),
            self.record(20.0, width=16),
            self.record(40.0, steps=20_000, variant="MHS"),
            self.record(300.0, precision="float32"),
        ]
        for parts, expected in (
            ({}, 80),
            ({"variant": "SRIP"}, 99),
            ({"variant": "SRIP", "width": 16}, 20),
            ({"steps": 20_000}, 40),
            ({"precision": "float32"}, 300),
        ):
            assert durations.expected_seconds(self.config | parts, done, None) == expected

    def test_before_any_run_the_number_of_operations_counts(self):
        """An H100 is assumed to reach 100 TFLOP/s in bfloat16, 30 in float32, half in ResNet-32."""
        for parts, seconds in (
            ({}, 42_500 * 205e9 / 100e12),
            ({"width": 128}, 4 * 42_500 * 205e9 / 100e12),
            ({"precision": "float32"}, 42_500 * 205e9 / 30e12),
            ({"experiment": "resnet32", "steps": 1000}, 2 * 1000 * 850e9 / 100e12),
        ):
            found = durations.expected_seconds(self.config | parts, [], None)
            assert found == pytest.approx(60 + seconds)

    def test_two_lengths_show_the_time_of_a_step_whatever_was_compiled(self):
        for compiling in (0.0, 30.0):
            measured = durations.speed(
                [
                    self.record(40.0 + 10.0, 40.0, steps=2500, rate=0.1),
                    self.record(15.0, 5.0, steps=2500),
                    self.record(compiling + 20.0, compiling, steps=5000),
                ]
            )
            assert measured == (40, pytest.approx(0), pytest.approx(0.004))
            found = durations.expected_seconds(self.config | {"width": 32}, [], measured)
            assert found == pytest.approx(40 + 42.5)
        assert durations.speed([self.record(10.0), self.record(20.0)]) is None

    def test_the_clock_sums_the_time_in_the_compiler_alone(self):
        clock = durations.CompileClock()
        for event in ("backend_compile_duration", "jaxpr_trace_duration") * 2:
            clock._add(f"/jax/core/compile/{event}", 2.0, fun_name="train")
        assert clock.seconds == 4

    @pytest.mark.parametrize("experiment", ["cnn9", "resnet32"])
    def test_operations_are_those_of_forward_and_backward_pass(self, experiment):
        """Three times those of the convolutions in a forward pass."""
        build = getattr(importlib.import_module(f"workloads.{experiment}"), experiment)
        total = 0
        for layer in build(None, None, 64, "auto").layers:
            if hasattr(layer, "kernel"):
                kernel, outputs = layer.kernel.shape, layer.output.shape[1:-1]
                total += 2 * math.prod(kernel) * math.prod(outputs)
        assert 3 * 128 * total == pytest.approx(durations._STEP_FLOP[experiment], rel=0.03)


class TestCalibration:
    def setting(self, step=0.002, runs=()):
        card = Card(step=step)
        trials = [card.run(config, {}) for config in calibration.trials("cifar10", quick=False)]
        return calibration.setting(trials, list(runs), "cifar10")

    def test_nothing_is_chosen_before_both_trials_are_done(self):
        card = Card()
        trials = [card.run(config, {}) for config in calibration.trials("cifar10", quick=False)]
        for trial in trials:
            assert calibration.setting([trial], [], "cifar10") is None

    @pytest.mark.parametrize(("step", "steps"), [(0.002, 42_500), (0.0025, 20_000)])
    def test_steps_are_fewer_if_a_run_takes_over_two_minutes(self, step, steps):
        """Full runs take 30 s and the time of their steps: 115 and 136 s."""
        assert self.setting(step) == (0.1, 500, steps)

    def test_the_papers_rate_is_replaced_if_a_full_baseline_learns_nothing(self, work):
        card = Card()
        card.accuracy = lambda c: 10.0 if (c["steps"], c["rate"]) == (42_500, 0.1) else 50.0
        work(card, minutes=16)
        runs = [(c["rate"], c["warmup"], c["seed"]) for c in card.configs[2:]]
        assert runs[:4] == [(0.1, 500, 0), (0.03, 500, 0), (0.03, 500, 1), (0.03, 500, 2)]

    def test_a_low_accuracy_of_trials_changes_nothing(self, work):
        """They have no warm-up, so that they end near chance level."""
        card = Card()
        card.accuracy = lambda c: 10.0 if c["steps"] < 42_500 else 50.0
        work(card, minutes=6)
        assert {(c["rate"], c["warmup"]) for c in card.configs[2:]} == {(0.1, 500)}

    def test_the_seed_of_trials_is_not_that_of_a_run(self):
        seeds = {seed for group in gpu_list.GROUPS for seed in range(group.seeds)}
        assert not seeds & {trial["seed"] for trial in calibration.trials("cifar10", False)}


class TestResuming:
    def table(self, folder):
        found = list(records.read(folder / "cnn9.jsonl").values())
        return tables.full_table(found, cnn9.experiment).to_markdown()

    def test_a_queue_that_is_killed_and_a_complete_one_end_with_the_same_table(
        self, work, tmp_path
    ):
        killed, complete = tmp_path / "killed", tmp_path / "complete"
        work(Card(), out=complete)
        for count in (2, 5, 8):
            card = Card()
            card.error = lambda c, n=count, d=card: (
                KeyboardInterrupt() if len(d.configs) > n else None
            )
            with pytest.raises(KeyboardInterrupt):
                work(card, out=killed)
            # A kill while a line is written leaves a part of it.
            for path in killed.glob("*.jsonl"):
                path.write_text(path.read_text() + '{"config": {"see')
        card = Card()
        assert work(card, out=killed)[0]
        assert len(card.configs) == sum(map(len, results(complete).values())) - (2 + 5 + 8)
        assert results(killed) == results(complete)
        assert self.table(killed) == self.table(complete)

    def test_nothing_runs_twice(self, work):
        work(Card())
        card = Card()
        succeeded, printed = work(card)
        assert succeeded
        assert card.configs == []
        assert f"0 runs are missing for {H100}." in printed

    def test_a_failed_run_is_reported_and_tried_again_next_time(self, work):
        failing, repaired = Card(), Card()
        failing.error = lambda c: MemoryError("full [/gpu]") if c["variant"] == "MHS" else None
        succeeded, printed = work(failing)
        assert not succeeded
        assert "cnn9, MHS, seed 0: 0.0 s; MemoryError: full [/gpu]" in printed
        assert "Failed, and tried again next time: cnn9, MHS, seed 2" in printed
        assert failing.configs[-1]["variant"] == "MHE(1)"
        assert work(repaired)[0]
        assert [(c["variant"], c["seed"]) for c in repaired.configs] == [
            ("MHS", seed) for seed in range(3)
        ]

    def test_without_trials_only_runs_that_need_no_rate_start(self, work):
        card = Card()
        card.error = lambda c: ValueError() if c["seed"] == calibration._SEED else None
        assert not work(card)[0]
        assert {c["experiment"] for c in card.configs[5:]} == {"crowding"}


class TestCards:
    def test_another_machine_with_the_same_card_continues(self, work):
        work(Card(processor="one", cores=16, driver="1"), minutes=12)
        card = Card(processor="another", cores=8, driver="2")
        work(card, minutes=3)
        assert (card.configs[0]["variant"], card.configs[0]["seed"]) == ("half-space MHE s=2", 2)

    def test_another_card_begins_anew_in_the_same_files(self, work, tmp_path):
        work(Card(), minutes=12)
        one = results(tmp_path)
        other = Card(H200)
        # Other cards give other numbers.
        other.accuracy = lambda config: 70.0
        work(other, minutes=12)
        assert other.configs == [config for rows in one.values() for config, _ in rows]
        found = list(records.read(tmp_path / "cnn9.jsonl").values())
        assert len(found) == 2 * len(one["cnn9.jsonl"])
        shown = tables.full_table(found, cnn9.experiment)
        assert {row[shown.headings.index("card")] for row in shown.rows} == {H100, H200}

    def test_the_list_shows_what_is_done_on_each_card(self, work, tmp_path):
        for count, name in ((3, H100), (1, H200)):
            card = Card(name)
            card.error = lambda c, n=count, d=card: ValueError() if len(d.configs) > 2 + n else None
            work(card)
        console = Console(file=io.StringIO(), width=200)
        gpu.list_runs("cifar10", tmp_path, console)
        printed = console.file.getvalue()
        for name, count in ((H100, 3), (H200, 1)):
            _, _, after = printed.partition(f"{name}, cifar10. Rate 0.1")
            row = next(line for line in after.splitlines() if "│ baseline" in line)
            assert f"{count} of 3" in row

    def test_the_list_needs_no_results(self, tmp_path):
        console = Console(file=io.StringIO(), width=200)
        gpu.list_runs("cifar10", tmp_path, console)
        assert "no GPU yet, cifar10. The rate and the number of steps" in console.file.getvalue()

    def test_a_cpu_and_other_backends_raise(self, work):
        with pytest.raises(ValueError, match=r"need a GPU\. .* Received: CPU"):
            work(Card(name=None))
        with pytest.raises(ValueError, match=r"need JAX\. Received: "):
            work(Card(backend="torch"))


class TestRunConfig:
    def test_parts_that_an_experiment_would_ignore_raise(self):
        config = {"experiment": "crowding", "variant": "baseline", "seed": 0, "speed": 1}
        with pytest.raises(ValueError, match=r"The parts of crowding are .* Received: speed"):
            runner.run_config(config, {})


@pytest.mark.slow
def test_a_quick_queue_of_real_runs_ends_and_continues(tmp_path):
    command = [sys.executable, "-m", "experiments", "gpu", "--quick", "--out", str(tmp_path)]
    printed = [
        subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"KERAS_BACKEND": "jax"},
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert "5 runs. Minutes: start" in printed[0]
    assert "0 runs. Minutes: start" in printed[1]
    trials = records.read(tmp_path / calibration.FILE).values()
    assert all(trial["compile_seconds"] > 0 for trial in trials)
    assert sorted(results(tmp_path)) == ["calibration.jsonl", "cnn9.jsonl", "crowding.jsonl"]
