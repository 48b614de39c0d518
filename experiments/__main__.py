"""`python -m experiments`: runs what is missing, then shows the results of all runs."""

import inspect
import os
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# A run computes on one core, so that sums have one order: on TensorFlow, on JAX and on a GPU.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "NPROC": "1"}
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"

import keras
import matplotlib.pyplot as plt
import typer
from rich.console import Console

from experiments import (
    BEGAN,
    cnn9,
    codebook,
    correlation,
    crowding,
    evidence_plot,
    finetuning,
    gan,
    gpu,
    imbalance,
    imbalanced_cnn9,
    lazy,
    lazy_digits,
    optimizers,
    plateau,
    pruning,
    resnet32,
    signs,
    sphereface_plus,
    starts,
    unlabeled,
)
from experiments.data import sources_by_name
from experiments.evidence import evidence
from experiments.evidence_page import update_evidence
from experiments.experiment import Experiment, InputError
from experiments.records import Config, Value
from experiments.report import results_path, update_page, write_results
from experiments.runner import run_missing

EXPERIMENTS = [
    module.experiment
    for module in (
        cnn9,
        imbalanced_cnn9,
        imbalance,
        optimizers,
        starts,
        crowding,
        sphereface_plus,
        gan,
        correlation,
        plateau,
        lazy,
        lazy_digits,
        signs,
        finetuning,
        resnet32,
        unlabeled,
        codebook,
        pruning,
    )
]
_FOLDER = Path(__file__).parent
_HELP = {
    "data": '"digits"; "cifar10" or "cifar100" of Keras; a folder with the folders `train` and '
    "`test`, which hold a folder of images for every class; or an .npz archive of `x_train`, "
    "`y_train`, `x_test` and `y_test`.",
    "width": "Filters of the first layers.",
    "images": "Number of training images, which the seed selects.",
    "steps": "Training steps.",
    "rate": "Initial learning rate.",
    "warmup": "First steps in which the learning rate rises.",
    "imbalance": 'Classes with fewer images: "single" or "multiple".',
    "trainer": '"fit" of Keras, or "scan" on JAX, which keeps images on the device.',
    "precision": 'Type in which layers compute: "float32" or "bfloat16".',
    "loss": '"cross-entropy", or "bounded", the loss of the papers\' programs.',
    "passes": "Passes over the training set.",
    "features": "Dimension of the features.",
    "head": "Class vectors as they are (plain), or scaled to length one (normalized).",
    "classes": "Number of classes.",
    "shots": "Training images of each new class.",
    "optimizer": "SGD with momentum (sgd), adam, or adamw, whose weight decay replaces L2.",
    "codes": "Number of codes.",
    "length": "Lengths of codes and vectors: one, or free.",
    "margin": "Factor of the angle to the correct class.",
}

app = typer.Typer(
    help="Measures when hyperspherical energy helps. Each experiment runs what its file of results "
    "lacks, then shows the table of all runs. Options accept one value, or several separated by "
    "commas. KERAS_BACKEND is tensorflow or jax.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _selected_variants(option: str | None, experiment: Experiment) -> list[str]:
    if option == "all" or (option is None and not experiment.default_variants):
        return list(experiment.variants)
    names = list(experiment.default_variants) if option is None else option.split(",")
    for name in names:
        if name not in experiment.variants:
            known = ", ".join(experiment.variants)
            raise typer.BadParameter(f"Variants are {known}. Received: {name}")
    return names


def _selected_grid(options: dict[str, Any], experiment: Experiment) -> dict[str, list[Value]]:
    """Returns the values of each part: those of the options, or the defaults."""
    grid = {}
    for name, defaults in experiment.grid.items():
        kind = type(defaults[0])
        if options[name] is not None:
            try:
                grid[name] = [kind(value) for value in options[name].split(",")]
            except ValueError:
                grid[name] = []
            # Zero is allowed where it is the default.
            least = 0 if kind is str or 0 in defaults else sys.float_info.min
            if not grid[name] or (kind is not str and min(grid[name]) < least):
                positive = "" if least == 0 else "positive "
                raise typer.BadParameter(
                    f"Expected {positive}{kind.__name__}s separated by commas. "
                    f"Received: --{name} {options[name]}"
                )
        else:
            quick = experiment.quick_grid if options["quick"] else {}
            grid[name] = list(quick.get(name, defaults))
    return grid


def _execute(experiment: Experiment, options: dict[str, Any]) -> None:
    """Runs all combinations, seed by seed, so that an interrupted command leaves whole pairs."""
    variants = _selected_variants(options["variants"], experiment)
    grid = _selected_grid(options, experiment)
    sources = sources_by_name([str(source) for source in grid.get("data", [])])
    if sources:
        grid["data"] = list(sources)
    fixed = {
        "experiment": experiment.runs_of or experiment.name,
        "backend": keras.backend.backend(),
    }
    configs: list[Config] = [
        fixed | dict(zip(grid, values, strict=True)) | {"variant": variant, "seed": seed}
        for seed in range(options["seeds"] or (2 if options["quick"] else 5))
        for values in product(*grid.values())
        for variant in variants
    ]
    folder = options["out"] / "quick" if options["quick"] else options["out"]
    if options["quick"] and experiment.runs_of is None:
        # A check always runs, whatever is recorded.
        results_path(experiment, folder).unlink(missing_ok=True)
    console = Console(width=200)
    run_missing(configs, sources, results_path(experiment, folder), options["workers"], console)
    write_results(experiment, folder, console)


def _add_command(experiment: Experiment) -> None:
    """Adds the command of an experiment, with an option for each part of its configs."""
    texts = {
        name: f"{_HELP[name]} Default: {', '.join(map(str, values))}."
        for name, values in experiment.grid.items()
    }
    known, default = (
        ", ".join(names) for names in (experiment.variants, experiment.default_variants)
    )
    texts["variants"] = f"all, or some of {known}. Default: {default or 'all'}."
    option = typer.Option
    of_experiment = {
        name: (None, Annotated[str | None, option(help=text)]) for name, text in texts.items()
    }
    common = {
        "seeds": (
            None,
            Annotated[int | None, option(min=1, help="Number of seeds: 0, 1, ... Default: 5.")],
        ),
        "workers": (2, Annotated[int, option(min=1, help="Parallel runs, one core each.")]),
        "quick": (
            False,
            Annotated[bool, option("--quick", help="Check with two tiny runs per combination.")],
        ),
        "out": (_FOLDER / "results", Annotated[Path, option(help="Folder of the results.")]),
    }
    parameters = of_experiment | common

    def command(**options: Any) -> None:
        try:
            _execute(experiment, options)
        except InputError as error:
            raise typer.BadParameter(str(error)) from error

    # Typer reads options from the signature, which differs between experiments.
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind)
            for name, (value, kind) in parameters.items()
        ]
    )
    command.__annotations__ = {name: kind for name, (_, kind) in parameters.items()}
    app.command(experiment.name.replace("_", "-"), help=experiment.description)(command)


@app.command("gpu")
def run_on_gpu(
    minutes: Annotated[float, typer.Option(help="Time that no run exceeds.")] = 12.0,
    data: Annotated[str, typer.Option(help=_HELP["data"])] = "cifar10",
    quick: Annotated[bool, typer.Option("--quick", help="Check with tiny runs, on a CPU.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Print what is done and missing.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results. The default is that of the other commands, and a "
            "temporary one for quick runs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Runs what is most wanted on a GPU and not done yet, one run after another.

    Each run is written when it ends, and the next command continues. It needs KERAS_BACKEND=jax.
    Exits with 1 if a run failed.
    """
    console = Console(width=160)
    if out is None:
        out = Path(tempfile.mkdtemp(prefix="keras-mhe-")) if quick else _FOLDER / "results"
    try:
        if show:
            return gpu.list_runs(data, out, console)
        source = "digits" if quick else data
        done = gpu.run(minutes, source, out, quick, console, BEGAN)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(not done)


@app.command()
def tables() -> None:
    """Writes all tables and plots again from the recorded runs, and the tables of README.md."""
    page, folder = _FOLDER / "README.md", _FOLDER / "results"
    console = Console(width=200)
    recorded = [each for each in EXPERIMENTS if results_path(each, folder).exists()]
    for experiment in recorded:
        write_results(experiment, folder, console)
    page.write_text(update_page(page.read_text("utf-8"), recorded, folder), "utf-8")


@app.command("map")
def write_map() -> None:
    """Writes the picture and the tables of docs/evidence.md from all recorded runs."""
    docs = _FOLDER.parent / "docs"
    page, picture = docs / "evidence.md", docs / "images" / "evidence.png"
    rows = evidence(EXPERIMENTS, _FOLDER / "results")
    figure = evidence_plot.draw(rows)
    figure.savefig(picture, dpi=200)
    plt.close(figure)
    page.write_text(update_evidence(page.read_text("utf-8"), rows), "utf-8")


for _experiment in EXPERIMENTS:
    _add_command(_experiment)

if __name__ == "__main__":
    app(prog_name="python -m experiments")
