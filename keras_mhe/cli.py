"""The `keras-mhe` command."""

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from keras_mhe.report import Report

app = typer.Typer(
    help="Hyperspherical-energy regularization for Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _Distance(StrEnum):
    euclidean = "euclidean"
    angular = "angular"


def _fail(sentence: str, status: int) -> NoReturn:
    typer.echo(f"keras-mhe: {sentence}", err=True)
    raise typer.Exit(status)


def _check_paths(given: list[Path | None], written: list[Path | None]) -> None:
    """Says which file would be written over that is read, written twice, or nowhere."""
    known = {path.resolve() for path in given if path is not None}
    for path in filter(None, written):
        if path.resolve() in known:
            _fail(f"{path} would be written over.", 2)
        if not path.resolve().parent.is_dir():
            _fail(f"cannot write {path}: its folder does not exist.", 2)
        known.add(path.resolve())


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror}.", 2)


def _judge(report: "Report", limit: float) -> None:
    """Ends with status 1 if a kernel stands above a position, or has none for being broken."""
    unknown = [row.name for row in report.rows if row.bound is None]
    if unknown:
        typer.echo(f"keras-mhe: no position is known of {', '.join(unknown)}.", err=True)
    bad = [
        row.name
        for row in report.rows
        if row.non_finite or row.smallest is None or (row.position or 0.0) > limit
    ]
    if bad:
        _fail(f"above position {limit:g}, zero or not finite: {', '.join(bad)}.", 1)


@app.command()
def demo(
    seeds: Annotated[int, typer.Option(min=1, help="Pairs of networks to train.")] = 12,
    factor: Annotated[float, typer.Option(min=0, help="Weight of the energy.")] = 10.0,
    s: Annotated[float, typer.Option(min=0, help="Power of the potential; 0: logarithm.")] = 2.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 40,
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for the picture.")] = Path(
        "keras-mhe-demo"
    ),
) -> None:
    """Train the same network with and without MHE on long-tailed digits; see the difference.

    Prints accuracy, angles and energy over all seeds, and saves a picture of the features and
    class vectors on the sphere. About a minute on two cores.
    """
    from keras_mhe.demo import run_demo

    run_demo(seeds, factor, s, epochs, output)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="A .keras file.", show_default=False)],
    weights: Annotated[
        Path | None,
        typer.Option(help="A .weights.h5 or .h5 file: its weights in place of the model's."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one web page.", dir_okay=False)
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write its pictures as one PNG.", dir_okay=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write its numbers as JSON; - prints nothing else.")
    ] = None,
    s: Annotated[float, typer.Option(min=0, help="Power of the potential; 0: logarithm.")] = 2.0,
    distance: Annotated[
        _Distance, typer.Option(help="Between neurons: straight or along the sphere.")
    ] = _Distance.euclidean,
    half_space: Annotated[
        bool | None,
        typer.Option(
            "--half-space/--full-space",
            help="Whether a neuron's mirror image counts as that neuron. By default in hidden "
            "layers, not in output layers.",
            show_default=False,
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="POSITION",
            help="End with status 1 if a kernel stands above this, is all zero, or has neurons "
            "that are not finite.",
        ),
    ] = None,
) -> None:
    """Say where the neurons of a saved model stand: energies, angles, dead and duplicate ones.

    Nothing in the file is run: models with Lambda layers or classes of your own are refused.

    Status: 0 if all went well, 1 for what --fail-above finds, 2 for bad files and arguments.
    """
    from keras_mhe.files import ModelFileError, model_from_file
    from keras_mhe.measuring import energy_report

    alone = str(json) == "-"
    _check_paths([model, weights], [html, png, None if alone else json])
    if fail_above is not None and math.isnan(fail_above):
        _fail("--fail-above needs a number.", 2)
    try:
        loaded = model_from_file(model, weights)
        report = energy_report(loaded, s, distance=distance.value, half_space=half_space)
    except (ModelFileError, ValueError) as error:
        _fail(str(error), 2)
    as_json = report.to_json()
    typer.echo(as_json if alone else repr(report).rstrip())
    if json is not None and not alone:
        _write(json, (as_json + "\n").encode())
    if html is not None:
        from keras_mhe.page import page

        _write(html, page(report, model.name).encode(errors="replace"))
    if png is not None:
        from keras_mhe.page import picture

        _write(png, picture(report))
    if fail_above is not None:
        _judge(report, fail_above)
