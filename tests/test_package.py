"""What importing and installing the package promises."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import keras_mhe

modules = [f"keras_mhe.{m.name}" for m in pkgutil.iter_modules(keras_mhe.__path__)]


def test_importing_stays_light():
    heavy = {"matplotlib", "sklearn", "typer", "pandas", "hypothesis"}
    program = (
        "import keras, sys\n"
        "before = set(sys.modules)\n"
        "import keras_mhe\n"
        f"print({heavy!r} & (set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "set()"


def test_base_dependencies_are_keras_and_numpy():
    base = [line for line in requires("keras-mhe") if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in base) == ["keras", "numpy"]


def test_no_extra_overwrites_a_gpu_build():
    assert not any("tensorflow-cpu" in line for line in requires("keras-mhe"))


def test_version_and_command_are_installed():
    assert version("keras-mhe") == keras_mhe.__version__
    [script] = [e for e in entry_points(group="console_scripts") if e.name == "keras-mhe"]
    assert callable(script.load())


def test_types_are_marked():
    assert (Path(keras_mhe.__file__).parent / "py.typed").exists()


def test_only_one_module_names_a_backend():
    for path in Path(keras_mhe.__file__).parent.glob("*.py"):
        if path.name != "_backend.py":
            text = path.read_text()
            assert "import tensorflow" not in text, path
            assert "import jax" not in text, path


@pytest.mark.parametrize("name", keras_mhe.__all__)
def test_public_names_are_documented_with_an_example(name):
    if name != "__version__":
        assert ">>>" in getattr(keras_mhe, name).__doc__


@pytest.mark.parametrize("name", modules)
def test_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)
    assert results.failed == 0
