"""The generated parts of the page with the map."""

from collections import Counter
from collections.abc import Callable

from experiments import papers_results
from experiments.evidence import Line, Row, lines
from experiments.evidence_rules import GROUPS, OURS, PAPERS, SIDES, part_text
from experiments.multiplicity import LEVEL
from experiments.records import config_key
from experiments.report import replace_table
from experiments.tables import TextTable

_VERDICTS = ("helps", "nothing shows", "harms", "runs failed")


def _interval(row: Row) -> str:
    """Formats a difference without its verdict."""
    if row.failed:
        return f"{row.difference.mean:+.2f}"
    return row.difference.difference.rpartition(", ")[0]


def _cell(row: Row) -> str:
    verdict = f"{row.failed} runs failed" if row.failed else row.verdict
    variant = "" if row.variant in row.labels else f"{row.variant}: "
    return f"{variant}{_interval(row)}, {f'**{verdict}**' if row.survives else verdict}"


def _group_table(group: list[Line]) -> TextTable:
    headings = ["condition", "pairs", *(f"settings of {SIDES[side]}" for side in (OURS, PAPERS))]
    return TextTable(
        headings,
        [
            [
                ", ".join(line.labels),
                line.pairs,
                *(_cell(line.sides[side]) if side in line.sides else "" for side in (OURS, PAPERS)),
            ]
            for line in group
        ],
    )


def group_tables(rows: list[Row]) -> str:
    """Returns a table for each group, under its heading."""
    groups: dict[str, list[Line]] = {}
    for line in lines(rows):
        groups.setdefault(line.group, []).append(line)
    return "\n".join(
        f"### {GROUPS[name]}\n\n{_group_table(group).to_markdown()}"
        for name, group in groups.items()
    )


def _counts_table(rows: list[Row]) -> TextTable:
    headings = ["settings of", "comparisons", *_VERDICTS]
    table = []
    for side in (OURS, PAPERS):
        own = [row for row in rows if row.side == side]
        found = Counter(row.verdict for row in own)
        remain = Counter(row.verdict for row in own if row.survives)
        counts = [
            f"{found[verdict]} ({remain[verdict]})"
            if verdict in ("helps", "harms")
            else str(found[verdict])
            for verdict in _VERDICTS
        ]
        table.append([SIDES[side], str(len(own)), *counts])
    return TextTable(headings, table)


def counts(rows: list[Row]) -> str:
    """Returns how many comparisons show what, and how many would by chance."""
    tested = [row for row in rows if not row.failed]
    clear = sum(row.verdict != "nothing shows" for row in tested)
    return (
        f"{_counts_table(rows).to_markdown()}\n"
        f"The map shows {len(rows)} comparisons. {len(tested)} of them have an interval, and "
        f"{clear} intervals exclude zero. If no setting had any effect, about "
        f"{LEVEL * len(tested):.0f} would exclude zero by chance. In parentheses: what remains "
        f"after Holm's correction over the {len(tested)} intervals; these are bold in the tables "
        "below.\n"
    )


def _own_results(rows: list[Row], variant: str) -> str:
    """Returns our differences of a variant on balanced images, with their conditions."""
    return "; ".join(
        f"{', '.join(label for label in row.labels if label != variant)}, {row.pairs} pairs: "
        f"{_interval(row)}"
        for row in rows
        if row.group == "balanced" and row.variant == variant
    )


def papers_table(rows: list[Row]) -> str:
    """Returns the accuracies of the papers' logs beside our differences."""
    headings = ["regularizer", "papers' log", "difference", "our difference (95 %)"]
    baseline = papers_results.BASELINE
    table = [["baseline", f"{baseline:.2f}", "", ""]]
    for variant, accuracy in papers_results.ACCURACIES.items():
        own = _own_results(rows, variant)
        table.append([variant, f"{accuracy:.2f}", f"{accuracy - baseline:+.2f}", own])
    return TextTable(headings, table).to_markdown()


def _text(value: object) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def conditions_table(rows: list[Row]) -> str:
    """Returns how the papers' runs and ours on balanced images were made."""
    parts = list(papers_results.CONDITION)
    headings = ["runs", "data", *parts, "trained by", "accuracy of the baseline, %", "pairs"]
    papers = map(_text, papers_results.CONDITION.values())
    table = [["papers", "CIFAR-100", *papers, "papers' programs"]]
    table[0] += [f"{papers_results.BASELINE:.2f}", "one run each"]
    pairs: dict[str, tuple[Row, int]] = {}
    for row in rows:
        if row.group == "balanced":
            key = config_key(row.condition)
            pairs[key] = row, max(row.pairs, pairs.get(key, (row, 0))[1])
    for row, count in pairs.values():
        values = [_text(row.condition[part]) for part in parts]
        trainer = f"{row.condition['trainer']}, {row.condition['precision']}"
        data = part_text("data", row.condition["data"])
        table.append(["ours", data, *values, trainer, str(row.baseline), str(count)])
    return TextTable(headings, table).to_markdown()


PARTS: dict[str, Callable[[list[Row]], str]] = {
    "comparisons": counts,
    "groups": group_tables,
    "papers": papers_table,
    "conditions": conditions_table,
}


def update_evidence(page: str, rows: list[Row]) -> str:
    """Returns the text of the page with its generated parts replaced."""
    for name, text in PARTS.items():
        page = replace_table(page, name, text(rows))
    return page
