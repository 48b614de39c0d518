"""Runs notebooks from clean kernels: `python notebooks/execute.py notebooks/*.ipynb`.

An error or a warning in any cell ends with status 1. `--write` keeps the outputs. `--quick`
trains a few steps only: it checks that all cells run, not what they show.
"""

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient

# An error in a cell comes with the traceback that says which.
app = typer.Typer(pretty_exceptions_enable=False)


def _streams(notebook: nbformat.NotebookNode, name: str) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(
        o.text for o in outputs if o.output_type == "stream" and o.name == name
    )


def _tidy(notebook: nbformat.NotebookNode) -> None:
    """Takes out what says something of the machine only: times, logs, and what pip says."""
    install = True
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = [o for o in cell.outputs if o.get("name") != "stderr"]
            cell.outputs, install = [] if install else kept, False


# What a quick run shortens: numbers of steps, epochs and seeds.
_SHORTER = (
    (r"\b(epochs|passes)=\d+", r"\1=2"),
    (r"\bsteps=\d+", "steps=50"),
    (r"(for seed in range)\(\d+\)", r"\1(2)"),
    (r"range\(\d{3}\)", "range(5)"),
    # The axis of a picture, a point for each of ten epochs.
    (r"range\(3, 31, 3\)", "range(3, 9, 3)"),
)


def _shorten(notebook: nbformat.NotebookNode) -> None:
    install = True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for pattern, shorter in _SHORTER:
                cell.source = re.sub(pattern, shorter, cell.source)
            # The first cell installs the package, which is there already.
            cell.source, install = "" if install else cell.source, False


@app.command()
def execute(
    paths: list[Path],
    write: Annotated[
        bool, typer.Option(help="Keep the outputs in the notebooks.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="Train a few steps only.")] = False,
) -> None:
    """Runs each notebook in its folder, as Jupyter does."""
    if write and quick:
        raise typer.BadParameter(
            "The outputs of a quick run are not worth keeping."
        )
    for path in paths:
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        if quick:
            _shorten(notebook)
        where = {"metadata": {"path": str(path.resolve().parent)}}
        NotebookClient(notebook, timeout=600, resources=where).execute()
        typer.echo(f"{path.name}: {time.monotonic() - start:.0f} s")
        if re.search(r"\w+Warning:", said := _streams(notebook, "stderr")):
            typer.echo(said, err=True)
            sys.exit(1)
        if write:
            _tidy(notebook)
            nbformat.write(notebook, path)


if __name__ == "__main__":
    app()
