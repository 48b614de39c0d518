"""Runs in pairs: means, standard errors, and 95 % intervals of the differences."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from rich.table import Table
from scipy import stats

from experiments.experiment import Experiment
from experiments.records import Config, Record, Value, identity


class Sample(NamedTuple):
    """A mean over seeds, its standard error and the 95 % interval of Student's t."""

    mean: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if np.isinf(self.error) else f" ± {self.error:.2f}")

    @property
    def difference(self) -> str:
        """The mean with its sign, the interval, and which way if that leaves zero out."""
        if np.isnan(self.mean) and np.isinf(self.error):
            return "no pairs"
        if np.isinf(self.error):
            return f"{self.mean:+.2f}, one pair"
        verdict = "higher" if self.low > 0 else "lower" if self.high < 0 else "unclear"
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f}), {verdict}"


def sample(values: Iterable[float]) -> Sample:
    """What seeds say; of its error one seed says nothing."""
    array = np.array(list(values))
    if len(array) < 2:
        return Sample(array[0] if len(array) else np.nan, np.inf, -np.inf, np.inf)
    error = float(stats.sem(array))
    reach = float(stats.t.ppf(0.975, len(array) - 1)) * error
    return Sample(array.mean(), error, array.mean() - reach, array.mean() + reach)


class Arm(NamedTuple):
    """All runs of one variant under one condition, by seed."""

    condition: Config
    variant: str
    runs: dict[int, Record]

    def figure(self, name: str) -> Sample:
        """One of the figures, over seeds."""
        return sample(run["figures"][name] for run in self.runs.values())

    def gain(self, baseline: "Arm", name: str) -> Sample:
        """One of the figures less that of the baseline, over the seeds that both have.

        Another machine, or another version of a package, makes no pair.
        """
        pairs = [(run, baseline.runs[k]) for k, run in self.runs.items() if k in baseline.runs]
        return sample(
            ours["figures"][name] - theirs["figures"][name]
            for ours, theirs in pairs
            if ours["machine"] == theirs["machine"]
        )

    def ruined(self, experiment: Experiment) -> int:
        """How many runs learned nothing, or ended without finite numbers.

        They are no spread around a mean, which intervals of Student's t ask for.
        """
        if experiment.chance is None:
            return 0
        # Guesses of a network that has learned nothing scatter around chance.
        least = 1.5 * experiment.chance(self.condition)
        figures = [run["figures"] for run in self.runs.values()]
        return sum(
            each[experiment.headlines[0]] <= least or not np.isfinite(list(each.values())).all()
            for each in figures
        )


def _condition(record: Record) -> Config:
    return {k: v for k, v in record["config"].items() if k not in ("variant", "seed")}


def arms(records: Iterable[Record], variants: tuple[str, ...]) -> list[tuple[Arm, Arm | None]]:
    """Every arm beside the baseline of its condition, or None if it is that or there is none yet.

    In order: of conditions, of `variants` and of seeds, whatever the order of `records`.
    """

    def place(record: Record) -> tuple[list[Value], int, int]:
        config = record["config"]
        parts = [value for _, value in sorted(_condition(record).items())]
        return parts, variants.index(config["variant"]), config["seed"]

    found: dict[tuple[str, str], Arm] = {}
    for record in sorted(records, key=place):
        condition, variant = _condition(record), record["config"]["variant"]
        arm = found.setdefault((identity(condition), variant), Arm(condition, variant, {}))
        arm.runs[record["config"]["seed"]] = record
    return [
        (arm, None if variant == variants[0] else found.get((condition, variants[0])))
        for (condition, variant), arm in found.items()
    ]


def parts_that(vary: bool, records: Iterable[Record]) -> dict[str, Value]:
    """Parts of conditions that differ from record to record, or those that do not."""
    values: dict[str, set[Value]] = {}
    for record in records:
        for name, value in record["config"].items():
            values.setdefault(name, set()).add(value)
    return {
        name: min(each, key=str)
        for name, each in values.items()
        if (len(each) > 1) == vary and name not in ("experiment", "variant", "seed")
    }


def in_words(condition: Config, parts: Iterable[str]) -> str:
    """Some parts of a condition, for a title."""
    return ", ".join(f"{part} {condition[part]}" for part in parts)


class Rows(NamedTuple):
    """A table of text."""

    headings: list[str]
    cells: list[list[str]]

    def to_markdown(self) -> str:
        """For a page."""
        lines = [self.headings, ["---"] * len(self.headings), *self.cells]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_table(self) -> Table:
        """For a terminal."""
        table = Table(*self.headings)
        for line in self.cells:
            table.add_row(*line)
        return table


def compare(records: list[Record], experiment: Experiment) -> Rows:
    """A row an arm: figures with standard errors, and headlines less those of the baseline."""
    parts, headlines = parts_that(True, records), experiment.headlines
    others = [name for name in records[0]["figures"] if name not in headlines]
    headings = [*parts, "variant", "runs"]
    for name in headlines:
        headings += [name, "less the baseline (95 %)"]
    cells = []
    for arm, baseline in arms(records, experiment.variants):
        line = [*(str(arm.condition[part]) for part in parts), arm.variant, str(len(arm.runs))]
        ruined = arm.ruined(experiment)
        for name in headlines:
            gain = arm.gain(baseline, name) if baseline else None
            difference = gain.difference if gain else ""
            if gain and ruined:
                difference = f"{gain.mean:+.2f}, {ruined} of {len(arm.runs)} ruined"
            line += [str(arm.figure(name)), difference]
        cells.append([*line, *(str(arm.figure(name)) for name in others)])
    return Rows([*headings, *others], cells)


def circumstances(records: Iterable[Record]) -> str:
    """What all runs have in common, on what machines they ran and when."""
    records = list(records)
    common = [f"{name} {value}" for name, value in parts_that(False, records).items()]
    machines = {
        f"{record['machine']['accelerator'] or record['machine']['processor']}, "
        + ", ".join(f"{k} {v}" for k, v in record["machine"]["versions"].items())
        for record in records
    }
    dates = sorted({record["date"] for record in records})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return f"{', '.join(common)}. {'; '.join(sorted(machines))}. {when}."
