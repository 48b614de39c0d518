"""Tests of the committed notebooks and their outputs; CI runs them with `notebooks/execute.py`."""

import base64
import json
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

folder = Path(__file__).parents[1] / "notebooks"
names = ["quickstart", "thomson_problem", "comhe", "uniformity"]
names += ["existing_models", "large_output_layers", "class_imbalance", "embeddings"]
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not folder.exists(), reason="only a checkout has notebooks"),
]


@pytest.fixture(params=[f"{k:02}_{name}" for k, name in enumerate(names, 1)])
def cells(request):
    text = (folder / f"{request.param}.ipynb").read_text("utf-8")
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(text)["cells"]]


def code_cells(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs(cells):
    return [output for cell in code_cells(cells) for output in cell["outputs"]]


def test_the_folder_contains_exactly_these_notebooks():
    found = sorted(path.stem for path in folder.glob("*.ipynb"))
    assert found == [f"{k:02}_{name}" for k, name in enumerate(names, 1)]


def test_only_the_first_code_cell_installs_the_package(cells):
    assert code_cells(cells)[0]["source"] == '%pip install --quiet "..[notebooks]"'
    assert not any("pip install" in cell["source"] for cell in code_cells(cells)[1:])
    assert "notebooks" in metadata("keras-mhe").get_all("Provides-Extra")


def test_outputs_come_from_one_run_from_top_to_bottom(cells):
    assert [cell["execution_count"] for cell in code_cells(cells)] == list(
        range(1, len(code_cells(cells)) + 1)
    )


def test_outputs_contain_no_errors_logs_or_machine_paths(cells):
    assert not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs(cells))
    data = [
        {k: v for k, v in o.get("data", {}).items() if "image" not in k} for o in outputs(cells)
    ]
    text = json.dumps(data) + "".join("".join(o.get("text", [])) for o in outputs(cells))
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users)/", text)


def test_notebooks_have_pictures_formulas_and_valid_links(cells):
    pictures = [o["data"]["image/png"] for o in outputs(cells) if "image/png" in o.get("data", {})]
    assert pictures
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    text = "".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert "$" in text
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (folder / link).exists(), link
