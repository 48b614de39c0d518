"""The rows of the map: comparisons of all experiments, by condition, with Holm's correction."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.comparison import Arm, comparisons
from experiments.evidence_rules import (
    GROUPS,
    OURS,
    PAPERS,
    Choice,
    choose,
    group_of,
    label_parts,
    metrics_of,
    ordered_subjects,
    part_text,
    title_of,
)
from experiments.experiment import Experiment
from experiments.multiplicity import holm, p_value
from experiments.records import Config, Record
from experiments.report import compared_records
from keras_mhe.cli._paired import Estimate

# With fewer pairs, intervals are too wide to show anything.
MINIMUM_PAIRS = 3


class Row(NamedTuple):
    """A comparison on the map.

    Attributes:
        group: a key of `GROUPS`.
        labels: what tells the row from others of its group: parts of its condition, and what is
            regularized.
        side: `OURS` or `PAPERS`.
        variant: name of the variant in the records.
        pairs: number of pairs.
        failed: number of runs of the variant that failed.
        condition: the config without variant and seed.
        baseline: mean metric of the baseline.
        difference: mean difference in percentage points; the interval has no meaning if runs
            failed.
        survives: whether Holm's correction over all rows of the map rejects a difference of zero.
    """

    group: str
    labels: tuple[str, ...]
    side: str
    variant: str
    pairs: int
    failed: int
    condition: Config
    baseline: Estimate
    difference: Estimate
    survives: bool = False

    @property
    def verdict(self) -> str:
        """`"helps"`, `"harms"`, `"nothing shows"` or `"runs failed"`."""
        if self.failed:
            return "runs failed"
        verdicts = {"higher": "helps", "lower": "harms", "unclear": "nothing shows"}
        return verdicts[self.difference.verdict]


class Line(NamedTuple):
    """The rows of one condition: at most one on each side.

    Attributes:
        group: a key of `GROUPS`.
        labels: labels of both rows.
        sides: rows by side.
    """

    group: str
    labels: tuple[str, ...]
    sides: dict[str, Row]

    @property
    def pairs(self) -> str:
        """The numbers of pairs of both sides, one number if they are equal."""
        numbers = (str(self.sides[side].pairs) for side in (OURS, PAPERS) if side in self.sides)
        return "/".join(dict.fromkeys(numbers))


def lines(rows: Iterable[Row]) -> list[Line]:
    """Groups rows by condition."""
    found: dict[tuple[str, tuple[str, ...]], Line] = {}
    for row in rows:
        line = found.setdefault((row.group, row.labels), Line(row.group, row.labels, {}))
        line.sides[row.side] = row
    return list(found.values())


_Found = tuple[Choice, Arm, Arm]


def _shown(experiment: Experiment, records: list[Record]) -> list[_Found]:
    """Returns the comparisons with enough pairs that the rules choose."""
    found = []
    for arm, baseline in comparisons(records, experiment.variants):
        choice = choose(experiment.name, arm.condition, arm.variant)
        if choice and len(arm.pairs(baseline)) >= MINIMUM_PAIRS:
            found.append((choice, arm, baseline))
    return found


def _with_unique_labels(rows: list[Row]) -> list[Row]:
    """Adds the variant to the labels of rows that otherwise have one place on the map."""
    places = Counter((row.labels, row.side) for row in rows)
    return [
        row._replace(labels=(*row.labels, row.variant)) if places[row.labels, row.side] > 1 else row
        for row in rows
    ]


def _rows(experiment: Experiment, found: list[_Found], metric: str, label: str) -> list[Row]:
    titles = [text for text in (title_of(experiment.name), label) if text]
    parts = label_parts(arm.condition for _, arm, _ in found)
    subjects = ordered_subjects(choice.subject for choice, _, _ in found)
    conditions = {tuple(arm.condition[part] for part in parts) for _, arm, _ in found}
    # Labels vary most in their last entry.
    subject_first = len(subjects) <= len(conditions)
    keyed = []
    for choice, arm, baseline in found:
        values = [arm.condition[part] for part in parts]
        labels = [part_text(part, value) for part, value in zip(parts, values, strict=True)]
        subject = [choice.subject] if len(subjects) > 1 or not (titles or labels) else []
        row = Row(
            group_of(experiment.name),
            (*titles, *(subject + labels if subject_first else labels + subject)),
            choice.side,
            arm.variant,
            len(arm.pairs(baseline)),
            arm.failed_runs(experiment),
            arm.condition,
            baseline.metric(metric),
            arm.difference(baseline, metric),
        )
        rank = subjects.index(choice.subject)
        keyed.append(((rank, values) if subject_first else (values, rank), row))
    return _with_unique_labels([row for _, row in sorted(keyed, key=lambda each: each[0])])


def evidence(experiments: Iterable[Experiment], folder: Path) -> list[Row]:
    """Returns the rows of the map, sorted by group.

    Experiments that measure no accuracy have no row.
    """
    rows: list[Row] = []
    for experiment in experiments:
        if metrics := metrics_of(experiment.name, experiment.main_metrics[0]):
            shown = _shown(experiment, compared_records(experiment, folder))
            for metric, label in metrics.items():
                rows += _rows(experiment, shown, metric, label)
    rows.sort(key=lambda row: list(GROUPS).index(row.group))
    # Rows with failed runs have no interval, and so no test.
    tested = [row for row in rows if not row.failed]
    survivors = iter(holm([p_value(row.difference, row.pairs) for row in tested]))
    return [row if row.failed else row._replace(survives=next(survivors)) for row in rows]
