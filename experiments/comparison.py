"""Groups runs into arms and compares each arm with the baseline, seed by seed."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from experiments.experiment import Experiment
from experiments.records import Config, Record, Value, card, config_key
from keras_mhe.cli._paired import Estimate, estimate


def _machine(record: Record) -> dict[str, Any]:
    """Returns what two runs must share to be paired.

    The numbers of an accelerator depend on the card and on the versions of packages. Its processor,
    cores and driver may differ between machines that are rented one after another. On a CPU, all
    that is known of the machine counts.
    """
    machine = record["machine"]
    if machine.get("accelerator"):
        return {name: machine.get(name) for name in ("accelerator", "backend", "versions")}
    return {name: value for name, value in machine.items() if value is not None}


class Arm(NamedTuple):
    """All runs of one variant under one condition, by seed."""

    condition: Config
    variant: str
    runs: dict[int, Record]

    def metric(self, name: str) -> Estimate:
        """Estimates the mean of a metric over seeds."""
        return estimate(run["figures"][name] for run in self.runs.values())

    def pairs(self, baseline: "Arm") -> list[tuple[Record, Record]]:
        """Returns the runs of both arms with the same seed.

        Runs on different machines, or with different versions of packages, are not paired.
        """
        return [
            (run, baseline.runs[seed])
            for seed, run in self.runs.items()
            if seed in baseline.runs and _machine(run) == _machine(baseline.runs[seed])
        ]

    def difference(self, baseline: "Arm", name: str) -> Estimate:
        """Estimates the mean of `metric - metric of the baseline` over all pairs."""
        return estimate(
            ours["figures"][name] - theirs["figures"][name] for ours, theirs in self.pairs(baseline)
        )

    def failed_runs(self, experiment: Experiment) -> int:
        """Counts runs that learned nothing or ended with numbers that are not finite.

        With such runs, differences are far from normally distributed, and an interval of Student's
        t has no meaning.
        """
        if experiment.chance_level is None:
            return 0
        # The metric of a network that has learned nothing scatters around the chance level.
        limit = 1.5 * experiment.chance_level(self.condition)
        return sum(
            metrics[experiment.main_metrics[0]] <= limit
            or not np.isfinite(list(metrics.values())).all()
            for metrics in (run["figures"] for run in self.runs.values())
        )


def _condition(record: Record) -> Config:
    """Returns the parts of a config that are not compared, and the card."""
    parts = {k: v for k, v in record["config"].items() if k not in ("variant", "seed")}
    return parts | {"card": card(record)}


def arms(records: Iterable[Record], variants: tuple[str, ...]) -> list[tuple[Arm, Arm | None]]:
    """Returns every arm with the baseline of its condition.

    The second entry is None for a baseline, and where no run of the baseline exists. Arms are
    sorted by condition and by the order of `variants`; runs by seed.
    """

    def order(record: Record) -> tuple[list[Value], int, int]:
        config = record["config"]
        values = [value for _, value in sorted(_condition(record).items())]
        return values, variants.index(config["variant"]), config["seed"]

    found: dict[tuple[str, str], Arm] = {}
    for record in sorted(records, key=order):
        condition, variant = _condition(record), record["config"]["variant"]
        arm = found.setdefault((config_key(condition), variant), Arm(condition, variant, {}))
        arm.runs[record["config"]["seed"]] = record
    return [
        (arm, None if variant == variants[0] else found.get((condition, variants[0])))
        for (condition, variant), arm in found.items()
    ]


def comparisons(records: Iterable[Record], variants: tuple[str, ...]) -> list[tuple[Arm, Arm]]:
    """Returns the arms that have a baseline, each with that baseline."""
    return [(arm, baseline) for arm, baseline in arms(records, variants) if baseline is not None]


def _config_values(records: Iterable[Record]) -> dict[str, set[Value]]:
    values: dict[str, set[Value]] = {}
    for record in records:
        for name, value in _condition(record).items():
            values.setdefault(name, set()).add(value)
    values.pop("experiment", None)
    return values


def varying_parts(records: Iterable[Record]) -> list[str]:
    """Returns the names of those parts of conditions that differ between records."""
    return [name for name, values in _config_values(records).items() if len(values) > 1]


def independent_parts(records: Iterable[Record]) -> list[str]:
    """Returns the varying parts without those that an earlier one determines.

    For example, `images` is left out if all records of one `width` have the same `images`.
    """
    records = list(records)
    conditions = [_condition(record) for record in records]
    kept: list[str] = []
    for part in varying_parts(records):
        if not any(
            len({condition[other] for condition in conditions})
            == len({(condition[other], condition[part]) for condition in conditions})
            for other in kept
        ):
            kept.append(part)
    return kept


def common_parts(records: Iterable[Record]) -> Config:
    """Returns those parts of configs that are equal in all records, without the card."""
    return {
        name: next(iter(values))
        for name, values in _config_values(records).items()
        if len(values) == 1 and name != "card"
    }


def condition_text(condition: Config, parts: Iterable[str]) -> str:
    """Formats some parts of a condition for a title."""
    return ", ".join(f"{part} {condition[part]}" for part in parts)
