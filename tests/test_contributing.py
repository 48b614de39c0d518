"""Pages and scripts for developers name only what exists, and the layout is that of the package."""

import ast
import re
from pathlib import Path

import pytest

import keras_mhe

root = Path(__file__).parents[1]
package = Path(keras_mhe.__file__).parent
contributing, architecture = root / "CONTRIBUTING.md", root / "docs" / "architecture.md"
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not (root / ".ci").exists(), reason="these files are in a checkout only"),
]

_PATH = re.compile(r"[\w.]+(?:/[\w.]+)*/?")
# How the name of a file or folder ends.
_ENDS = (".html", ".ipynb", ".md", ".py", ".toml", "/", "/run")


def paths_in(page):
    """The paths that a page names, in its sentences and in its commands."""
    text = page.read_text("utf-8")
    code = re.findall(r"```shell\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
    words = [word for part in code for word in part.split()]
    return [word for word in words if _PATH.fullmatch(word) and word.endswith(_ENDS)]


def layout():
    """The modules in the table of the layout, in its order."""
    rows = r"^\| `(\w+(?:/\w+)?\.py)` \|"
    return re.findall(rows, architecture.read_text("utf-8"), re.M)


def files_of(module):
    """The modules of the layout behind a name: one module, or all those of a subpackage."""
    path = module.replace(".", "/")
    return {name for name in layout() if name == f"{path}.py" or name.startswith(f"{path}/")}


def imported_by(path):
    """The modules of this package that a module imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_mhe."):
            module = node.module.removeprefix("keras_mhe.")
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if files_of(inner) else module


@pytest.mark.parametrize("page", [contributing, architecture], ids=lambda page: page.stem)
def test_paths_on_a_page_exist(page):
    named = paths_in(page)
    assert named
    # The layout is relative to the package.
    folders = (root, package)
    assert [n for n in named if not any((folder / n).exists() for folder in folders)] == []


def test_the_layout_lists_every_module_once():
    modules = [path.relative_to(package).as_posix() for path in package.rglob("*.py")]
    assert sorted(layout()) == sorted(name for name in modules if "__init__" not in name)


def test_imports_point_up_the_layout():
    above = set()
    for name in layout():
        for module in imported_by(package / name):
            assert files_of(module), f"{name} imports {module}"
            assert files_of(module) <= above, f"{name} imports {module}"
        above.add(name)


def test_the_ci_script_calls_sessions_that_exist():
    program = ast.parse((root / "noxfile.py").read_text("utf-8"))
    functions = [node for node in program.body if isinstance(node, ast.FunctionDef)]
    sessions = {f.name for f in functions if "nox.session" in ast.unparse(f.decorator_list[:1])}
    script = (root / ".ci" / "run").read_text("utf-8")
    called = re.findall(r'^ *part "[^"]+" session "?(\w+)', script, re.M)
    assert called
    assert set(called) <= sessions


def test_sessions_name_tests_that_exist():
    named = re.findall(r'"(tests/[^"]+)"', (root / "noxfile.py").read_text("utf-8"))
    assert named
    assert [name for name in named if not (root / name).exists()] == []
