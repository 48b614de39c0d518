"""The `keras-mhe` command."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Hyperspherical-energy regularization for Keras.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _commands() -> None:
    """Keeps `demo` a command of its own, so that others can stand beside it."""


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
