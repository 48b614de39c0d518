"""What the committed notebooks promise a reader; CI runs them, `notebooks/execute.py`."""

import base64
import json
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

folder = Path(__file__).parents[1] / "notebooks"
names = ["quickstart", "thomson_problem", "comhe", "uniformity"]
names += ["existing_models", "large_output_layers", "class_imbalance"]
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not folder.exists(), reason="notebooks are in a checkout only"),
]


@pytest.fixture(params=[f"{k:02}_{name}" for k, name in enumerate(names, 1)])
def cells(request):
    text = (folder / f"{request.param}.ipynb").read_text("utf-8")
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(text)["cells"]]


def code(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs(cells):
    return [output for cell in code(cells) for output in cell["outputs"]]


def test_the_folder_holds_these_notebooks():
    found = sorted(path.stem for path in folder.glob("*.ipynb"))
    assert found == [f"{k:02}_{name}" for k, name in enumerate(names, 1)]


def test_the_first_cell_with_code_is_the_one_install_line(cells):
    assert code(cells)[0]["source"] == '%pip install --quiet "..[notebooks]"'
    assert not any("pip install" in cell["source"] for cell in code(cells)[1:])
    assert "notebooks" in metadata("keras-mhe").get_all("Provides-Extra")


def test_outputs_are_those_of_one_run_from_top_to_bottom(cells):
    assert [cell["execution_count"] for cell in code(cells)] == list(range(1, len(code(cells)) + 1))


def test_outputs_hold_no_error_no_log_and_no_path_of_a_machine(cells):
    assert not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs(cells))
    shown = [
        {k: v for k, v in o.get("data", {}).items() if "image" not in k} for o in outputs(cells)
    ]
    text = json.dumps(shown) + "".join("".join(o.get("text", [])) for o in outputs(cells))
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users)/", text)


def test_there_are_pictures_formulas_and_ways_on(cells):
    pictures = [o["data"]["image/png"] for o in outputs(cells) if "image/png" in o.get("data", {})]
    assert pictures
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    text = "".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert "$" in text
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (folder / link).exists(), link
