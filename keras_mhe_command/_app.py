"""The options of the `keras-mhe` command.

Commands import Keras, and the package, when they run.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from keras_mhe_command._log import without_tensorflow_log

if TYPE_CHECKING:
    from keras_mhe.analysis import Report

app = typer.Typer(
    help="Hyperspherical-energy regularization for Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_S_HELP = "Power of the potential; 0 means the logarithm."
_OWN_HELP = "The default is that of the kernel's regularizer, or "


class _Distance(StrEnum):
    euclidean = "euclidean"
    angular = "angular"
    gaussian = "gaussian"


def _say(sentence: str) -> None:
    """Prints a sentence as an error. Names in it, of files too, can have control characters."""
    from keras_mhe._printable import printable

    typer.echo(printable(f"keras-mhe: {sentence}"), err=True)


def _fail(sentence: str, status: int) -> NoReturn:
    _say(sentence)
    raise typer.Exit(status)


@contextmanager
def _printable_warnings() -> Iterator[None]:
    """Prints warnings in the block like errors: those of Keras name layers."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _check_paths(inputs: list[Path | None], outputs: list[Path | None]) -> None:
    """Exits if an output file would overwrite an input or another output, or has no folder."""
    known = {path.resolve() for path in inputs if path is not None}
    for path in filter(None, outputs):
        if path.resolve() in known:
            _fail(f"{path} would be overwritten.", 2)
        if not path.resolve().parent.is_dir():
            _fail(f"cannot write {path}: its folder does not exist.", 2)
        known.add(path.resolve())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror}.", 2)


def _check_positions(report: "Report", limit: float) -> None:
    """Exits with status 1 if a kernel is above a position, all zero or not finite."""
    unknown = [row.name for row in report.rows if row.lower_bound is None]
    if unknown:
        _say(f"no position is known for {', '.join(unknown)}.")
    failed = [
        row.name
        for row in report.rows
        if row.non_finite or row.nearest_angle_min is None or (row.position or 0.0) > limit
    ]
    if failed:
        _fail(f"above position {limit:g}, zero or not finite: {', '.join(failed)}.", 1)


@app.command()
@without_tensorflow_log()
def demo(
    seeds: Annotated[int, typer.Option(min=1, help="Number of pairs of networks to train.")] = 12,
    factor: Annotated[float, typer.Option(min=0, help="Weight of the energy.")] = 10.0,
    s: Annotated[float, typer.Option(min=0, help=_S_HELP)] = 2.0,
    epochs: Annotated[
        int, typer.Option(min=1, help="Number of passes over the training images.")
    ] = 40,
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the picture.")] = Path(
        "keras-mhe-demo"
    ),
) -> None:
    """Train the same network with and without MHE on long-tailed digits, and compare.

    Prints accuracy, angles and energy over all seeds. Saves a picture of the class vectors and of
    the smallest angle between them. Takes one to two minutes on two cores.
    """
    from keras_mhe.cli._demo import run_demo

    run_demo(seeds, factor, s, epochs, output)


@app.command()
@without_tensorflow_log()
def inspect(
    model: Annotated[Path, typer.Argument(help="A .keras file.", show_default=False)],
    weights: Annotated[
        Path | None,
        typer.Option(help="A .weights.h5 or .h5 file whose weights replace those of the model."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="An earlier .keras file, for example from before training: report what changed."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one web page.", dir_okay=False)
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the pictures as one PNG.", dir_okay=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the numbers as JSON; - prints only JSON.")
    ] = None,
    s: Annotated[
        float | None, typer.Option(min=0, help=f"{_S_HELP} {_OWN_HELP}2.", show_default=False)
    ] = None,
    distance: Annotated[
        _Distance | None,
        typer.Option(
            help="Distance between neurons: straight, along the sphere, or the potential of a "
            f"Gaussian. {_OWN_HELP}euclidean.",
            show_default=False,
        ),
    ] = None,
    t: Annotated[
        float | None,
        typer.Option(help=f"Rate of a Gaussian. {_OWN_HELP}2.", show_default=False),
    ] = None,
    half_space: Annotated[
        bool | None,
        typer.Option(
            "--half-space/--full-space",
            help="Whether the mirror image of a neuron counts as that neuron. "
            f"{_OWN_HELP}half space, or full space for output layers and embeddings.",
            show_default=False,
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="POSITION",
            help="Exit with status 1 if a kernel is above this position, is all zero, or has "
            "neurons that are not finite.",
        ),
    ] = None,
) -> None:
    """Report energies, angles, and zero and duplicate neurons of a saved model.

    With --against, also reports how far the neurons turned from those of an earlier model.

    Never runs code from a file: refuses models with Lambda layers or custom classes.

    Exit status: 0 for success, 1 if --fail-above finds a kernel, 2 for bad files or arguments.
    """
    from keras_mhe._printable import printable
    from keras_mhe.analysis import energy_report
    from keras_mhe.cli._errors import ModelFileError
    from keras_mhe.cli._files import model_from_file

    only_json = str(json) == "-"
    _check_paths([model, weights, against], [html, png, None if only_json else json])
    if fail_above is not None and math.isnan(fail_above):
        _fail("--fail-above needs a number.", 2)
    try:
        with _printable_warnings():
            loaded = model_from_file(model, weights)
            earlier = None if against is None else model_from_file(against)
            report = energy_report(
                loaded,
                s,
                distance=None if distance is None else distance.value,
                t=t,
                half_space=half_space,
                against=earlier,
            )
    except (ModelFileError, ValueError) as error:
        _fail(str(error), 2)
    as_json = report.to_json()
    typer.echo(as_json if only_json else repr(report).rstrip())
    if json is not None and not only_json:
        _write(json, (as_json + "\n").encode())
    if html is not None:
        from keras_mhe.cli._page import render_html

        name = model.name if against is None else f"{model.name}, compared with {against.name}"
        _write(html, render_html(report, name).encode())
    if png is not None:
        from keras_mhe.cli._page import render_png

        _write(png, render_png(report))
    written = [] if only_json else [str(path) for path in (json, html, png) if path is not None]
    if written:
        typer.echo("\n" + printable(f"Wrote {', '.join(written)}."))
    if fail_above is not None:
        _check_positions(report, fail_above)
