"""What all runs in a folder of results say: tables, pictures, and the tables of README.md."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from experiments import picture
from experiments.comparing import arms, circumstances, compare
from experiments.experiment import Experiment
from experiments.records import read


def path_of(experiment: Experiment, folder: Path) -> Path:
    """The file of an experiment's runs."""
    return folder / f"{experiment.runs or experiment.name}.jsonl"


def show(experiment: Experiment, folder: Path, console: Console) -> None:
    """Prints the table, and writes pictures beside the results: of differences if there are any."""
    records = list(read(path_of(experiment, folder)).values())
    seen = experiment.seen_as(records)
    figures = {}
    if any(baseline for _, baseline in arms(seen, experiment.variants)):
        figures[experiment.name] = picture.draw(seen, experiment)
    if experiment.closer:
        figures[f"{experiment.name}-closer"] = experiment.closer(records)
    console.print(circumstances(seen), soft_wrap=True)
    console.print(compare(seen, experiment).to_table())
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)
        console.print(f"{folder / name}.png", soft_wrap=True)


def section(experiment: Experiment, folder: Path) -> str:
    """The table as a page shows it."""
    seen = experiment.seen_as(list(read(path_of(experiment, folder)).values()))
    return f"{circumstances(seen)}\n\n{compare(seen, experiment).to_markdown()}"


def with_tables(page: str, experiments: list[Experiment], folder: Path) -> str:
    """A page, what stands between its marks of an experiment and its end made anew."""
    for experiment in experiments:
        start, end = f"<!-- table of {experiment.name} -->\n", "<!-- end of the table -->"
        text = section(experiment, folder)
        page, count = re.subn(
            f"(?s)({re.escape(start)}).*?({re.escape(end)})",
            lambda match, text=text: f"{match[1]}{text}{match[2]}",
            page,
        )
        if count != 1:
            raise ValueError(f"Expected one mark for a table. Received: {count} of {start.strip()}")
    return page
