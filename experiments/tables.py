"""Tables of an experiment: of all runs, and the short one of the README."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from rich.table import Table

from experiments.comparison import (
    Arm,
    arms,
    common_parts,
    comparisons,
    independent_parts,
    varying_parts,
)
from experiments.experiment import Experiment
from experiments.records import Record

_DIFFERENCE = "difference (95 %)"


class TextTable(NamedTuple):
    """A table whose cells are text."""

    headings: list[str]
    rows: list[list[str]]

    def to_markdown(self) -> str:
        """Formats the table for a page."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def to_rich(self) -> Table:
        """Formats the table for a terminal."""
        table = Table(*self.headings)
        for row in self.rows:
            table.add_row(*row)
        return table


def _difference(arm: Arm, baseline: Arm, metric: str, experiment: Experiment) -> str:
    difference = arm.difference(baseline, metric)
    if failed := arm.failed_runs(experiment):
        return f"{difference.mean:+.2f}, {failed} of {len(arm.runs)} failed"
    return difference.difference


def _value(arm: Arm, metric: str) -> str:
    """Returns the mean of a metric, or no text if the metric is newer than some of the runs."""
    known = all(metric in run["figures"] for run in arm.runs.values())
    return str(arm.metric(metric)) if known else ""


def full_table(records: list[Record], experiment: Experiment) -> TextTable:
    """Returns a row for each arm: all metrics, the main ones with their difference."""
    parts, main = varying_parts(records), experiment.main_metrics
    metrics = dict.fromkeys(name for record in records for name in record["figures"])
    others = [name for name in metrics if name not in main]
    headings = [*parts, "variant", "runs"]
    for metric in main:
        headings += [metric, _DIFFERENCE]
    rows = []
    for arm, baseline in arms(records, experiment.variants):
        row = [*(str(arm.condition[part]) for part in parts), arm.variant, str(len(arm.runs))]
        for metric in main:
            difference = _difference(arm, baseline, metric, experiment) if baseline else ""
            row += [str(arm.metric(metric)), difference]
        rows.append([*row, *(_value(arm, metric) for metric in others)])
    return TextTable([*headings, *others], rows)


def page_table(records: list[Record], experiment: Experiment) -> TextTable:
    """Returns a row for each comparison that `experiment.page_rows` selects.

    Main metrics have the value of the baseline and the difference from it; other metrics have the
    values of baseline and variant.
    """
    selected = [
        (arm, baseline)
        for arm, baseline in comparisons(records, experiment.variants)
        if any(
            all((arm.condition | {"variant": arm.variant})[part] in values for part, values in each)
            for each in (selection.items() for selection in experiment.page_rows)
        )
    ]
    parts = independent_parts(records)
    several = len({arm.variant for arm, _ in comparisons(records, experiment.variants)}) > 1
    metrics = experiment.page_metrics or experiment.main_metrics
    headings = [*parts, *(["variant"] if several else []), "runs"]
    for metric in metrics:
        if metric in experiment.main_metrics:
            headings += [f"{metric}, baseline", _DIFFERENCE]
        else:
            headings.append(f"{metric}, baseline → variant")
    rows = []
    for arm, baseline in selected:
        row = [str(arm.condition[part]) for part in parts]
        row += [*([arm.variant] if several else []), str(len(arm.runs))]
        for metric in metrics:
            before, after = baseline.metric(metric), arm.metric(metric)
            if metric in experiment.main_metrics:
                row += [str(before), _difference(arm, baseline, metric, experiment)]
            else:
                row.append(f"{before.mean:.2f} → {after.mean:.2f}")
        rows.append(row)
    return TextTable(headings, rows)


def verdict_counts(records: list[Record], experiment: Experiment) -> str:
    """Counts the verdicts of all comparisons for each main metric, in a sentence."""
    pairs = comparisons(records, experiment.variants)
    variants = {arm.variant for arm, _ in pairs}
    # The table on the page has no column for a single variant.
    subject = f" of {variants.pop()} with the baseline" if len(variants) == 1 else ""
    order = ["higher", "lower", "unclear", "one pair", "no pairs", "with failed runs"]
    texts = []
    for metric in experiment.main_metrics:
        counts = Counter(
            "with failed runs"
            if arm.failed_runs(experiment)
            else arm.difference(baseline, metric).verdict
            for arm, baseline in pairs
        )
        text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
        texts.append(f"*{metric}* {text}")
    return f"Verdicts of {len(pairs)} comparisons{subject}: {'; '.join(texts)}."


def conditions_line(records: Iterable[Record]) -> str:
    """Returns what all runs have in common, their machines and their dates."""
    records = list(records)
    common = [f"{name} {value}" for name, value in common_parts(records).items()]
    machines = {
        f"{record['machine']['accelerator'] or record['machine']['processor']} ("
        + ", ".join(f"{name} {version}" for name, version in record["machine"]["versions"].items())
        + ")"
        for record in records
    }
    dates = sorted({record["date"] for record in records})
    period = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return (
        f"Same for all runs: {', '.join(common)}. "
        f"Measured on {'; '.join(sorted(machines))}, {period}."
    )
