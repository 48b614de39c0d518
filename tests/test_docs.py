"""What the pages of the documentation promise."""

import re
from pathlib import Path

import pytest
import typer

import keras_mhe
from keras_mhe import cli, plots, reference

pytestmark = pytest.mark.once

guides = Path(__file__).parents[1] / "docs"
pages = guides / "api"
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


# Code, and what it prints where the page shows that.
_BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\nprints\n\n```text\n(.*?)^```)?", re.M | re.S)
# Pages whose code runs where more is asked of what comes of it.
_ELSEWHERE = {
    "compressive": "test_comhe",
    "large_layers": "test_sampling",
    "models": "test_models",
    "regularizers": "test_uniformity",
    "seeing": "test_measuring",
}
_with_code = sorted(p.stem for p in guides.glob("*.md") if "```python" in p.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _with_code if name not in _ELSEWHERE])
def test_code_of_a_page_runs_and_prints_what_the_page_says(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, printed in _BLOCK.findall((guides / f"{name}.md").read_text("utf-8")):
        exec(code, names)
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", _ELSEWHERE)
def test_code_of_other_pages_runs_in_the_tests_of_a_module(name):
    assert name in _with_code
    module = Path(__file__).with_name(f"{_ELSEWHERE[name]}.py")
    assert f'"{name}.md"' in module.read_text("utf-8")
