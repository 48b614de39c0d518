"""Writes the tables and plots of recorded runs, and the generated parts of README.md."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from experiments import difference_plot
from experiments.comparison import comparisons
from experiments.experiment import Experiment
from experiments.records import Record, read
from experiments.tables import conditions_line, full_table, page_table, verdict_counts


def results_path(experiment: Experiment, folder: Path) -> Path:
    """Returns the file of an experiment's runs."""
    return folder / f"{experiment.runs_of or experiment.name}.jsonl"


def compared_records(experiment: Experiment, folder: Path) -> list[Record]:
    """Returns the records that the tables of an experiment compare."""
    return experiment.transform(list(read(results_path(experiment, folder)).values()))


def full_page(experiment: Experiment, folder: Path) -> str:
    """Returns the text of the file with the whole table."""
    records = compared_records(experiment, folder)
    title = experiment.name.replace("_", " ")
    return (
        f"# All runs: {title}\n\n"
        "How to read this table: [experiments](../README.md#how-to-read-the-tables).\n\n"
        f"{conditions_line(records)}\n\n{full_table(records, experiment).to_markdown()}"
    )


def page_section(experiment: Experiment, folder: Path) -> str:
    """Returns the generated part of README.md: conditions, verdicts and the short table."""
    records = compared_records(experiment, folder)
    total = len(comparisons(records, experiment.variants))
    table = page_table(records, experiment)
    shown = f"{len(table.rows)} of them" if len(table.rows) < total else "all of them"
    return (
        f"{conditions_line(records)}\n\n"
        f"{verdict_counts(records, experiment)} The table shows {shown}. "
        f"[All runs](results/{experiment.name}.md)\n\n"
        f"{table.to_markdown()}"
    )


def write_results(experiment: Experiment, folder: Path, console: Console) -> None:
    """Prints the whole table, and writes it and the plots beside the results."""
    runs = list(read(results_path(experiment, folder)).values())
    records = experiment.transform(runs)
    figures = {}
    if comparisons(records, experiment.variants):
        figures[experiment.name] = difference_plot.draw(records, experiment)
    if experiment.detail_figure:
        figures[f"{experiment.name}-detail"] = experiment.detail_figure(runs)
    console.print(conditions_line(records), soft_wrap=True)
    console.print(full_table(records, experiment).to_rich())
    path = folder / f"{experiment.name}.md"
    path.write_text(full_page(experiment, folder), "utf-8")
    console.print(f"{path}", soft_wrap=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)
        console.print(f"{folder / name}.png", soft_wrap=True)


def replace_table(page: str, name: str, text: str) -> str:
    """Returns the text of a page with the part between the marks of a table replaced."""
    start, end = f"<!-- table of {name} -->\n", "<!-- end of the table -->"
    page, count = re.subn(
        f"(?s)({re.escape(start)}).*?({re.escape(end)})",
        lambda match: f"{match[1]}{text}{match[2]}",
        page,
    )
    if count != 1:
        raise ValueError(f"Expected one mark for a table. Received: {count} of {start.strip()}")
    return page


def update_page(page: str, experiments: list[Experiment], folder: Path) -> str:
    """Returns the text of a page with the part between the marks of each experiment replaced."""
    for experiment in experiments:
        page = replace_table(page, experiment.name, page_section(experiment, folder))
    return page
