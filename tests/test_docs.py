"""What the pages of the documentation promise."""

import re
from pathlib import Path

import pytest
import typer

import keras_mhe
from keras_mhe import cli, plots, reference

pages = Path(__file__).parents[1] / "docs" / "api"
commands = typer.main.get_command(cli.app).commands


def test_each_public_name_stands_on_one_page_of_the_reference():
    public = [name for name in keras_mhe.__all__ if name != "__version__"]
    public += ["plots", *(f"plots.{name}" for name in plots.__all__)]
    public += [
        f"reference.{name}"
        for name, value in vars(reference).items()
        if getattr(value, "__module__", "") == reference.__name__ and name[0] != "_"
    ]
    public += ["attention.AttentionEnergy", "report.Report", "report.Standing"]
    public += ["table.Row", "table.Table"]
    texts = [path.read_text(encoding="utf-8") for path in pages.glob("*.md")]
    shown = [name for text in texts for name in re.findall(r"^::: (\S+)", text, re.M)]
    assert sorted(shown) == sorted(f"keras_mhe.{name}" for name in public)


@pytest.mark.parametrize("name", commands)
def test_the_page_of_the_command_has_its_options(name):
    text = (pages / "command_line.md").read_text(encoding="utf-8")
    [section] = [part for part in text.split("\n## ") if part.startswith(f"keras-mhe {name}\n")]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("|")]
    shown = re.findall(r"`(--[\w-]+)", "".join(cells))
    options = [o for p in commands[name].params for o in p.opts + p.secondary_opts if o[0] == "-"]
    assert shown == options
