"""What the pages of the documentation promise."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from official import differences, rows_of

import keras_mhe
from keras_mhe import cli, plots, reference

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


# Rows of the table of differences, and how to tell the cases that they are about.
_CASES = {
    "`MHE`, Euclidean": ("mhe", lambda row: row["power"][0] != "a"),
    "`MHE`, angular": ("mhe", lambda row: row["power"][0] == "a"),
    "`MHS`": ("uniformity", lambda row: row["kind"] == "mhs"),
    "`MGD`": ("uniformity", lambda row: row["kind"] == "mgd"),
    "`RMHP`": ("uniformity", lambda row: row["kind"] == "r_mhp"),
    "`MHP`": ("uniformity", lambda row: row["kind"] == "mhp"),
    "`MHC`": ("uniformity", lambda row: row["kind"] == "mhc"),
    "`CoMHE`, random": ("comhe", lambda row: row["kind"] == "random"),
    "`CoMHE`, angle": ("comhe", lambda row: row["kind"] == "angle"),
    "`CoMHE`, adversarial": ("comhe", lambda row: row["kind"] == "adversarial"),
}


def shown_differences():
    """The table of the page: cases and figures by row, and how many cases the page speaks of."""
    page = (guides / "papers.md").read_text("utf-8")
    [table] = [part for part in page.split("\n\n") if part.startswith("| | cases |")]
    rows = [[cell.strip() for cell in r.strip("|").split("|")] for r in table.splitlines()[2:]]
    shown = {label: (int(cases), np.array(figures, float)) for label, cases, *figures in rows}
    return shown, int(re.search(r"all (\d+) of", page)[1])


@pytest.mark.parametrize("label", _CASES)
def test_the_page_on_the_papers_says_how_near_their_values_are(label):
    paper, is_one = _CASES[label]
    found = [differences(row) for row in rows_of(paper) if is_one(row)]
    cases, figures = shown_differences()[0][label]
    assert len(found) == cases
    largest = np.max(found, axis=0)
    assert np.all(figures >= largest), largest
    # Rounded up; what is smaller than the rounding of float32 stands as this.
    assert np.all(figures <= np.maximum(2.5 * largest, 2e-6)), largest
    assert np.all(figures <= [5e-3 if label == "`MGD`" else 1e-3, 1e-2, 1e-2])


def test_the_page_on_the_papers_leaves_no_case_out():
    shown, cases = shown_differences()
    assert list(shown) == list(_CASES)
    everything = [row for paper in ("mhe", "uniformity", "comhe") for row in rows_of(paper)]
    assert cases == sum(shown[label][0] for label in shown) == len(everything)
