"""Runs notebooks in new kernels: `python notebooks/execute.py notebooks/*.ipynb`.

The exit status is 1 if a cell raises an error or shows a warning. `--write` saves the outputs.
`--quick` trains for only a few steps, to check that all cells run; its results mean nothing.
"""

import re
import sys
import time
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient

# A plain traceback is enough: the error of a cell contains the traceback of that cell.
app = typer.Typer(pretty_exceptions_enable=False)


def _stream_text(notebook: nbformat.NotebookNode, name: str) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(
        o.text for o in outputs if o.output_type == "stream" and o.name == name
    )


def _clean_outputs(notebook: nbformat.NotebookNode) -> None:
    """Removes what depends only on the machine: times, logs and the output of pip."""
    install = True
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = [o for o in cell.outputs if o.get("name") != "stderr"]
            cell.outputs, install = [] if install else kept, False


# Replacements in the code of a quick run: fewer steps, epochs and seeds.
_QUICK_REPLACEMENTS = (
    (r"\b(epochs|passes)=\d+", r"\1=2"),
    (r"\bsteps=\d+", "steps=50"),
    (r"(for seed in range)\(\d+\)", r"\1(2)"),
    (r"range\(\d{3}\)", "range(5)"),
    # The x-axis of a picture needs one value for each epoch.
    (r"range\(3, 31, 3\)", "range(3, 9, 3)"),
)


def _make_quick(notebook: nbformat.NotebookNode) -> None:
    install = True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for pattern, replacement in _QUICK_REPLACEMENTS:
                cell.source = re.sub(pattern, replacement, cell.source)
            # The first code cell installs the package, which is already installed.
            cell.source, install = "" if install else cell.source, False


@app.command()
def execute(
    paths: list[Path],
    write: Annotated[
        bool, typer.Option(help="Save the outputs in the notebooks.")
    ] = False,
    quick: Annotated[
        bool, typer.Option(help="Train for only a few steps.")
    ] = False,
) -> None:
    """Runs each notebook in its own folder, as Jupyter does."""
    if write and quick:
        raise typer.BadParameter(
            "`--write` cannot be combined with `--quick`: quick results mean nothing."
        )
    for path in paths:
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        if quick:
            _make_quick(notebook)
        resources = {"metadata": {"path": str(path.resolve().parent)}}
        NotebookClient(notebook, timeout=600, resources=resources).execute()
        typer.echo(f"{path.name}: {time.monotonic() - start:.0f} s")
        errors = _stream_text(notebook, "stderr")
        if re.search(r"\w+Warning:", errors):
            typer.echo(errors, err=True)
            sys.exit(1)
        if write:
            _clean_outputs(notebook)
            nbformat.write(notebook, path)


if __name__ == "__main__":
    app()
