"""`python -m experiments`: does the runs that are missing, and shows what all of them say."""

import inspect
import os
from itertools import product
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# A run computes on one core, so that sums come in one order: on TensorFlow, on JAX, on a GPU.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "NPROC": "1"}
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"

import keras
import typer
from rich.console import Console

from experiments import cnn9, correlation, crowding, gan, imbalance, sphereface_plus
from experiments.data import by_name
from experiments.experiment import Experiment, InputError
from experiments.records import Config, Value
from experiments.report import path_of, show, with_tables
from experiments.running import perform

EXPERIMENTS = [
    module.experiment for module in (cnn9, imbalance, crowding, sphereface_plus, gan, correlation)
]
_FOLDER = Path(__file__).parent
_HELP = {
    "data": '"digits"; "cifar10" or "cifar100" of Keras; the path of a folder of `train` and '
    "`test`, each with a folder of images for every class; or of an .npz archive of `x_train`, "
    "`y_train`, `x_test` and `y_test`.",
    "width": "Filters of the first layers.",
    "images": "Images to train on, drawn by seed.",
    "steps": "Steps of training.",
    "rate": "Learning rate to begin with.",
    "passes": "Passes over the training set.",
    "features": "Dimensions of the features.",
    "head": "Class vectors as they are, or as if of length one: plain, normalised.",
    "classes": "Numbers of classes.",
    "margin": "How many times the angle to the right class counts.",
}

app = typer.Typer(
    help="When does hyperspherical energy help? Each experiment does the runs that its file of "
    "results lacks, then shows the table of all. Options take one value, or several with commas "
    "between them. KERAS_BACKEND is tensorflow or jax.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _variants(option: str | None, experiment: Experiment) -> list[str]:
    if option == "all" or (option is None and not experiment.asked):
        return list(experiment.variants)
    names = list(experiment.asked) if option is None else option.split(",")
    for name in names:
        if name not in experiment.variants:
            known = ", ".join(experiment.variants)
            raise typer.BadParameter(f"Variants are {known}. Received: {name}")
    return names


def _grid(options: dict[str, Any], experiment: Experiment) -> dict[str, list[Value]]:
    """Values of each part: those that were asked for, or the usual ones."""
    grid = {}
    for name, usual in experiment.grid.items():
        kind = type(usual[0])
        if options[name] is not None:
            try:
                grid[name] = [kind(value) for value in options[name].split(",")]
            except ValueError:
                grid[name] = []
            if not grid[name] or (kind is not str and min(grid[name]) <= 0):
                positive = "" if kind is str else "positive "
                raise typer.BadParameter(
                    f"Expected {positive}{kind.__name__}s with commas between them. "
                    f"Received: --{name} {options[name]}"
                )
        else:
            grid[name] = list(experiment.quick.get(name, usual) if options["quick"] else usual)
    return grid


def _do(experiment: Experiment, options: dict[str, Any]) -> None:
    """Runs of all combinations, seed after seed, so that what was stopped early has pairs."""
    variants, grid = _variants(options["variants"], experiment), _grid(options, experiment)
    sources = by_name([str(place) for place in grid.get("data", [])])
    if sources:
        grid["data"] = list(sources)
    fixed = {"experiment": experiment.runs or experiment.name, "backend": keras.backend.backend()}
    configs: list[Config] = [
        fixed | dict(zip(grid, values, strict=True)) | {"variant": variant, "seed": seed}
        for seed in range(options["seeds"] or (2 if options["quick"] else 5))
        for values in product(*grid.values())
        for variant in variants
    ]
    folder = options["out"] / "quick" if options["quick"] else options["out"]
    if options["quick"] and experiment.runs is None:
        # A check checks, whatever was done before.
        path_of(experiment, folder).unlink(missing_ok=True)
    console = Console(width=200)
    perform(configs, sources, path_of(experiment, folder), options["workers"], console)
    show(experiment, folder, console)


def _add(experiment: Experiment) -> None:
    """A command of an experiment, with an option for each part of its configs."""
    texts = {
        name: f"{_HELP[name]} Default: {', '.join(map(str, values))}."
        for name, values in experiment.grid.items()
    }
    known, usual = (", ".join(names) for names in (experiment.variants, experiment.asked))
    texts["variants"] = f"All, or some of {known}. Default: {usual or 'all'}."
    option = typer.Option
    described = {
        name: (None, Annotated[str | None, option(help=text)]) for name, text in texts.items()
    }
    common = {
        "seeds": (
            None,
            Annotated[int | None, option(min=1, help="Seeds 0, 1, ... of each. Default: 5.")],
        ),
        "workers": (2, Annotated[int, option(min=1, help="Runs at a time, of a core each.")]),
        "quick": (
            False,
            Annotated[bool, option("--quick", help="Two tiny runs of each.")],
        ),
        "out": (_FOLDER / "results", Annotated[Path, option(help="Folder of the results.")]),
    }

    def command(**options: Any) -> None:
        try:
            _do(experiment, options)
        except InputError as error:
            raise typer.BadParameter(str(error)) from error

    # Typer reads options from a signature, and these differ from experiment to experiment.
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=usual, annotation=kind)
            for name, (usual, kind) in (described | common).items()
        ]
    )
    command.__annotations__ = {name: kind for name, (_, kind) in (described | common).items()}
    app.command(experiment.name.replace("_", "-"), help=experiment.about)(command)


@app.command()
def tables() -> None:
    """Writes the tables and the pictures of all results anew."""
    page, folder = _FOLDER / "README.md", _FOLDER / "results"
    console = Console(width=200)
    for experiment in EXPERIMENTS:
        show(experiment, folder, console)
    page.write_text(with_tables(page.read_text("utf-8"), EXPERIMENTS, folder), "utf-8")


for _experiment in EXPERIMENTS:
    _add(_experiment)

if __name__ == "__main__":
    app(prog_name="python -m experiments")
