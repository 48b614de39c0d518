"""The documentation covers all public names and options, and its code runs."""

import re
from pathlib import Path

import pytest
import typer

import keras_mhe
from keras_mhe import analysis, kernels, models, plots, reference, regularizers
from keras_mhe_command._app import app

pytestmark = pytest.mark.once

guides = Path(__file__).parents[1] / "docs"
pages = guides / "api"
commands = typer.main.get_command(app).commands


def test_each_public_name_is_on_one_page_of_the_api_reference():
    public = [name for name in keras_mhe.__all__ if name != "__version__"]
    public += ["plots", *(f"plots.{name}" for name in plots.__all__)]
    public += [f"reference.{name}" for name in reference.__all__]
    for package in (analysis, kernels, models, regularizers):
        name = package.__name__.partition(".")[2]
        public += [f"{name}.{x}" for x in package.__all__ if x not in keras_mhe.__all__]
    texts = [path.read_text(encoding="utf-8") for path in pages.glob("*.md")]
    shown = [name for text in texts for name in re.findall(r"^::: (\S+)", text, re.M)]
    assert sorted(shown) == sorted(f"keras_mhe.{name}" for name in public)


@pytest.mark.parametrize("name", commands)
def test_page_of_a_command_lists_all_its_options(name):
    text = (pages / "command_line.md").read_text(encoding="utf-8")
    [section] = [part for part in text.split("\n## ") if part.startswith(f"keras-mhe {name}\n")]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("|")]
    shown = re.findall(r"`(--[\w-]+)", "".join(cells))
    options = [o for p in commands[name].params for o in p.opts + p.secondary_opts if o[0] == "-"]
    assert shown == options


# A block of code, and its output if the page shows it.
_BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\nprints\n\n```text\n(.*?)^```)?", re.M | re.S)
# Pages whose code runs in another test file, with more assertions.
_TESTED_ELSEWHERE = {
    "compressive": "regularizers/test_comhe.py",
    "large_layers": "energies/test_minibatch.py",
    "models": "models/test_regularize.py",
    "pytorch": "test_torch.py",
    "regularizers": "regularizers/test_uniformity.py",
    "seeing": "analysis/test_energy_report.py",
}
_pages_with_code = sorted(
    p.stem for p in guides.glob("*.md") if "```python" in p.read_text("utf-8")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in _pages_with_code if name not in _TESTED_ELSEWHERE]
)
def test_code_of_a_page_runs_and_prints_the_shown_output(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, printed in _BLOCK.findall((guides / f"{name}.md").read_text("utf-8")):
        exec(code, names)
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", _TESTED_ELSEWHERE)
def test_code_of_other_pages_runs_in_the_named_test_file(name):
    assert name in _pages_with_code
    test_file = Path(__file__).parent / _TESTED_ELSEWHERE[name]
    assert f'"{name}.md"' in test_file.read_text("utf-8")


_README = (guides.parent / "README.md").read_text(encoding="utf-8")


def test_readme_has_at_most_700_words_beside_its_code():
    assert len(re.sub(r"^```.*?^```", "", _README, flags=re.M | re.S).split()) <= 700


@pytest.mark.slow
def test_example_of_the_readme_is_better_with_mhe(capsys):
    exec(_BLOCK.search(_README)[1], {})
    without, with_mhe = re.findall(r"\d\.\d+", capsys.readouterr().out)
    assert 0.6 < float(without) < float(with_mhe)
