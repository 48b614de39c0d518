"""`python -m benchmarks`: measures, prints ratios, writes a JSON file and a plot.

`python -m benchmarks gpu` measures what matters on a GPU.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# JAX would take three quarters of the memory of a GPU, and leave none to other processes.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import (
    batches,
    cnn9,
    compilation,
    gpu,
    kernels,
    memory,
    projections,
    reports,
    steps,
    uniformity,
)
from benchmarks.plot import draw
from workloads.machine import describe_machine, file_stem

_DIMENSION, _MEMORY_DIMENSION = 512, 64
# Additional numbers of neurons, for the curve of time against N.
_CURVE = [(_DIMENSION, 250), (_DIMENSION, 500), (_DIMENSION, 2000), (_DIMENSION, 8000)]
_DEVICE_SHAPES = [(_DIMENSION, 100000)]
_MEMORY_SIZES = {
    "papers": [500, 1000, 2000, 4000],
    "e2 half": [500, 1000, 2000, 5000, 20000, 50000],
}


def _ratio(row: dict[str, Any]) -> str:
    low, high = row["ratio_quartiles"]
    return f"{row['ratio']:.3g} ({low:.3g}-{high:.3g})"


def _kernel_table(rows: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(row["contender"] for row in rows))
    table = Table(title="Value and gradient: time / time of WᵀW, median (quartiles) of rounds")
    for column in ("kernel", "WᵀW", *names[1:]):
        table.add_column(column, justify="right")
    for shape in dict.fromkeys(tuple(row["shape"]) for row in rows):
        cells = {row["contender"]: row for row in rows if tuple(row["shape"]) == shape}
        milliseconds = f"{cells['product']['seconds'] * 1e3:.3g} ms"
        ratios = [_ratio(cells[name]) if name in cells else "-" for name in names[1:]]
        table.add_row(str(shape), milliseconds, *ratios)
    return table


def _memory_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Peak memory of a new process, value and gradient")
    for column in ("contender", "kernel", "before, MiB", "peak, MiB", "seconds with compilation"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (row["before_mib"], row["peak_mib"], row["seconds"])
        table.add_row(
            row["contender"], str(tuple(row["shape"])), *(f"{number:.4g}" for number in numbers)
        )
    return table


def _projection_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="CoMHE, value and gradient; learned projections include their update")
    for column in ("projection", "kernel", "seconds", "reference", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        shape, seconds = str(tuple(row["shape"])), f"{row['seconds']:.4g}"
        table.add_row(row["contender"], shape, seconds, row["against"], _ratio(row))
    return table


def _batch_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Energies of a batch X, value and gradient: time / time of XXᵀ")
    for column in ("points", "batch", "seconds", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        shape = str(tuple(row["shape"]))
        table.add_row(row["contender"], shape, f"{row['seconds']:.4g}", _ratio(row))
    return table


def _uniformity_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title="Measures of uniformity in half space, value and gradient: time / time of MHE"
    )
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    for column in ("regularizer", *map(str, shapes)):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(row["contender"] for row in rows):
        cells = {tuple(row["shape"]): _ratio(row) for row in rows if row["contender"] == name}
        table.add_row(name, *(cells[shape] for shape in shapes))
    return table


def _step_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Training step of CNN-9: time / time with L2 alone")
    for column in ("jit_compile", "regularizer", "batch", "width", "seconds", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["jit_compile"]),
            row["regularizer"],
            str(row["batch"]),
            str(row["width"]),
            f"{row['seconds']:.4g}",
            _ratio(row),
        )
    return table


def _network_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Training steps, every kernel regularized: time / time without")
    names = ("network", "energies", "batch", "seconds", "ratio", "regularize", "compilation")
    for column in names:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["network"],
            row["energies"],
            str(row["batch"]),
            f"{row['seconds']:.4g}",
            _ratio(row),
            f"{row['regularize_seconds']:.2g} s",
            f"{row['first_step_seconds']:.3g} s",
        )
    return table


def _compilation_table(row: dict[str, Any]) -> Table:
    table = Table(title="Compiling: first step of a new process, and memory of other settings")
    for column in ("network", "kernels", "without, seconds", "seconds", "ratio", "settings", "MiB"):
        table.add_column(column, justify="right")
    numbers = (f"{row[name]:.3g}" for name in ("seconds_without", "seconds"))
    sweep = (f"{row['settings']}", f"{row['added_mib']:.3g}")
    table.add_row(row["network"], str(row["kernels"]), *numbers, _ratio(row), *sweep)
    return table


def _report_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Report of all kernels: time / time of a training step")
    for column in ("network", "batch", "step, seconds", "report, seconds", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        numbers = (f"{row[name]:.3g}" for name in ("step_seconds", "seconds"))
        table.add_row(row["network"], str(row["batch"]), *numbers, _ratio(row))
    return table


_RESULTS = Path("benchmarks/results")
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Check that everything runs, with sizes too small to give ratios."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder for the results. The default is {_RESULTS}, and a temporary folder for quick "
        "runs.",
        show_default=False,
    ),
]


def results_folder(out: Path | None, quick: bool) -> Path:
    """The folder for results; for those of quick runs a temporary one unless `out` is given."""
    if out is not None:
        return out
    return Path(tempfile.mkdtemp(prefix="keras-mhe-benchmarks-")) if quick else _RESULTS


def show(console: Console, table: Table, quick: bool) -> None:
    """Prints a table of results; of a quick run only the number of its rows.

    Ratios at quick sizes are not those of real networks: with two images of 64 x 64, a step of
    ResNet50 takes several times as long with energies; with 32 images of 224 x 224, 8 % longer.
    """
    if quick:
        console.print(f"{table.title}. Rows: {table.row_count}")
    else:
        console.print(table)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("gpu")
def measure_gpu(
    minutes: Annotated[float, typer.Option(help="Time after which no measurement starts.")] = 10.0,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Measures what matters on a GPU, most important first, and continues where a run stopped.

    KERAS_BACKEND selects the backend: jax, torch or tensorflow. Each measurement is written when it
    is done. Exits with 1 if a measurement is missing.
    """
    raise typer.Exit(not gpu.run(minutes, quick, results_folder(out, quick)))


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Measures energies, CoMHE, uniformity, batches, memory, training steps, reports and compiling.

    KERAS_BACKEND selects the backend: tensorflow or jax. Run nothing else on the machine meanwhile.
    """
    if context.invoked_subcommand:
        return
    machine = describe_machine()
    console = Console(width=200)
    if quick:
        console.print(
            "--quick checks that everything runs. Its sizes are too small to give ratios."
        )
    shapes = kernels.QUICK_SHAPES if quick else sorted({*kernels.SHAPES, *_CURVE})
    if machine["accelerator"] and not quick:
        shapes += _DEVICE_SHAPES
    results: dict[str, Any] = {
        "machine": machine,
        "quick": quick,
        "curve_dimension": _DIMENSION,
        "memory_dimension": _MEMORY_DIMENSION,
        "kernels": [],
        "projections": [],
        "uniformity": [],
        "batches": [],
        "memory": [],
        "cnn9": [],
        "steps": [],
        "reports": [],
        "compilation": {},
    }
    for shape in track(shapes, "kernels", console=console):
        results["kernels"] += kernels.measure(shape, quick)
    show(console, _kernel_table(results["kernels"]), quick)
    results["projections"] = projections.measure(quick)
    show(console, _projection_table(results["projections"]), quick)
    results["uniformity"] = uniformity.measure(quick)
    show(console, _uniformity_table(results["uniformity"]), quick)
    results["batches"] = batches.measure(quick)
    show(console, _batch_table(results["batches"]), quick)
    # The memory of the process does not include the memory of an accelerator.
    if not machine["accelerator"]:
        for contender, sizes in _MEMORY_SIZES.items():
            for n in track(sizes[:1] if quick else sizes, f"memory, {contender}", console=console):
                results["memory"].append(memory.measure(contender, _MEMORY_DIMENSION, n))
        show(console, _memory_table(results["memory"]), quick)
    results["cnn9"] = cnn9.measure(quick)
    show(console, _step_table(results["cnn9"]), quick)
    few = {"networks": ("digits", "text"), "energies": ("default", "skipped")}
    results["steps"] = steps.measure(quick, **(few if quick else {}))
    show(console, _network_table(results["steps"]), quick)
    results["reports"] = reports.measure(quick)
    show(console, _report_table(results["reports"]), quick)
    results["compilation"] = compilation.measure(quick)
    show(console, _compilation_table(results["compilation"]), quick)

    folder = results_folder(out, quick)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_stem(machine)}{'-quick' if quick else ''}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, path.with_suffix(".png"))
    console.print(f"{path} and {path.with_suffix('.png')}")


if __name__ == "__main__":
    app()
