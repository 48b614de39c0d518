"""The installed package: imports, dependencies, docstrings and their examples."""

import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import keras
import pytest

import keras_mhe
from keras_mhe import MHE, HalfSpaceMHE, plots, reference
from keras_mhe.kernels import find_kernels, layer_kernels
from keras_mhe.regularizers import AttentionEnergy
from keras_mhe.regularizers._projections import Projection

modules = [m.name for m in pkgutil.walk_packages(keras_mhe.__path__, "keras_mhe.")]
references = [getattr(reference, name) for name in reference.__all__]
public = [getattr(keras_mhe, name) for name in keras_mhe.__all__ if name != "__version__"]
public += [plots, *(getattr(plots, name) for name in plots.__all__), *references]
public += [AttentionEnergy, find_kernels, layer_kernels]
classes = [thing for thing in public if inspect.isclass(thing)]
functions = [thing for thing in public if inspect.isfunction(thing)]
formulas = [keras_mhe.hyperspherical_energy, keras_mhe.class_energy, *references]
regularizers = [c for c in classes if issubclass(c, (keras.Regularizer, Projection))]
formulas += regularizers


def section(thing, title):
    """A section of a docstring, without its indentation."""
    found = re.search(rf"^{title}:\n((?: {{4}}.*\n|\n)+)", inspect.getdoc(thing) + "\n", re.M)
    return inspect.cleandoc("\n" + found[1]) if found else ""


def output_of_new_process(program, *arguments, **variables):
    """Runs a program in a new interpreter; returns its last line of output, read as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | variables,
    )
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.once
def test_import_loads_no_optional_packages():
    program = (
        "import json, sys\n"
        "import keras\n"
        "before = set(sys.modules)\n"
        "import keras_mhe\n"
        "extras = {'jinja2', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'tensorboardX', 'typer'}\n"
        "print(json.dumps(sorted(extras & (set(sys.modules) - before))))"
    )
    # JAX imports in half the time of TensorFlow.
    assert output_of_new_process(program, KERAS_BACKEND="jax") == []


@pytest.mark.slow
@pytest.mark.once
def test_new_process_loads_models_after_importing_the_package(tmp_path):
    regularizer = HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4)
    layers = [
        keras.layers.Conv2D(6, 3, kernel_regularizer=regularizer),
        keras.layers.Dense(4, kernel_regularizer=MHE(10.0, s=0)),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    model.save(tmp_path / "model.keras")
    program = (
        "import json, sys\n"
        "import keras, keras_mhe\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(json.dumps([float(x) for x in model.losses]))"
    )
    losses = output_of_new_process(program, str(tmp_path / "model.keras"))
    assert losses == [float(x) for x in model.losses]


def test_base_dependencies_are_keras_and_numpy():
    base = [line for line in requires("keras-mhe") if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in base) == ["keras", "numpy"]


def test_no_extra_installs_tensorflow_cpu():
    assert not any("tensorflow-cpu" in line for line in requires("keras-mhe"))


def test_version_and_command_are_installed():
    assert version("keras-mhe") == keras_mhe.__version__
    [script] = [e for e in entry_points(group="console_scripts") if e.name == "keras-mhe"]
    assert callable(script.load())


def test_package_has_a_py_typed_marker():
    assert (Path(keras_mhe.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("thing", public, ids=lambda thing: thing.__name__)
def test_public_names_have_an_example(thing):
    assert ">>> " in section(thing, "Examples")


@pytest.mark.parametrize("thing", classes + functions, ids=lambda thing: thing.__name__)
def test_docstrings_document_all_arguments_in_order(thing):
    signature = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing)
    documented = re.findall(r"^\**(\w+): \S", section(thing, "Args"), re.M)
    assert documented == [name for name in signature.parameters if name != "self"]


@pytest.mark.parametrize("function", functions, ids=lambda function: function.__name__)
def test_docstrings_of_functions_document_the_return_value(function):
    assert section(function, "Returns")


@pytest.mark.parametrize("thing", formulas, ids=lambda thing: thing.__name__)
def test_docstrings_of_formulas_name_a_source(thing):
    assert re.search(r"^Source: \S", inspect.getdoc(thing), re.M)


@pytest.mark.parametrize("thing", formulas[:2] + regularizers, ids=lambda thing: thing.__name__)
def test_docstrings_give_the_shapes_of_arrays(thing):
    assert re.search(r"shape\s`\(", inspect.getdoc(thing))


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    # The example of `regularize` is slow: it builds a network of `keras.applications`.
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n == "keras_mhe.models._regularize"))
        for n in modules
    ],
)
def test_docstring_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)
    assert results.failed == 0
