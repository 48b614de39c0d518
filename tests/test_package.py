"""What importing and installing the package promises."""

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
from keras_mhe.attention import AttentionEnergy
from keras_mhe.projections import Projection

modules = [m.name for m in pkgutil.walk_packages(keras_mhe.__path__, "keras_mhe.")]
references = [
    function
    for function in vars(reference).values()
    if getattr(function, "__module__", "") == reference.__name__ and function.__name__[0] != "_"
]
public = [getattr(keras_mhe, name) for name in keras_mhe.__all__ if name != "__version__"]
public += [plots, *(getattr(plots, name) for name in plots.__all__), *references, AttentionEnergy]
classes = [thing for thing in public if inspect.isclass(thing)]
functions = [thing for thing in public if inspect.isfunction(thing)]
numerics = [keras_mhe.hyperspherical_energy, keras_mhe.class_energy, *references]
regularizers = [c for c in classes if issubclass(c, (keras.Regularizer, Projection))]
numerics += regularizers


def section(thing, title):
    """The lines of a section of a docstring, less their common indent."""
    found = re.search(rf"^{title}:\n((?: {{4}}.*\n|\n)+)", inspect.getdoc(thing) + "\n", re.M)
    return inspect.cleandoc("\n" + found[1]) if found else ""


def fresh_process(program, *arguments, **variables):
    """What a new interpreter prints last."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | variables,
    )
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.once
def test_importing_stays_light():
    program = (
        "import json, sys\n"
        "import keras\n"
        "before = set(sys.modules)\n"
        "import keras_mhe\n"
        "heavy = {'jinja2', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'tensorboardX', 'typer'}\n"
        "print(json.dumps(sorted(heavy & (set(sys.modules) - before))))"
    )
    # JAX is imported in half the time of TensorFlow.
    assert fresh_process(program, KERAS_BACKEND="jax") == []


@pytest.mark.slow
@pytest.mark.once
def test_a_fresh_process_loads_models_after_importing_the_package(tmp_path):
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
    losses = fresh_process(program, str(tmp_path / "model.keras"))
    assert losses == [float(x) for x in model.losses]


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
    for path in Path(keras_mhe.__file__).parent.rglob("*.py"):
        if path.name != "_backend.py":
            text = path.read_text()
            assert "import tensorflow" not in text, path
            assert "import jax" not in text, path


@pytest.mark.parametrize("thing", public, ids=lambda thing: thing.__name__)
def test_public_names_have_an_example(thing):
    assert ">>> " in section(thing, "Examples")


@pytest.mark.parametrize("thing", classes + functions, ids=lambda thing: thing.__name__)
def test_arguments_are_documented_each_by_itself_in_their_order(thing):
    signature = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing)
    documented = re.findall(r"^\**(\w+): \S", section(thing, "Args"), re.M)
    assert documented == [name for name in signature.parameters if name != "self"]


@pytest.mark.parametrize("function", functions, ids=lambda function: function.__name__)
def test_functions_say_what_they_return(function):
    assert section(function, "Returns")


@pytest.mark.parametrize("thing", numerics, ids=lambda thing: thing.__name__)
def test_numbers_have_a_source(thing):
    assert re.search(r"^Source: \S", inspect.getdoc(thing), re.M)


@pytest.mark.parametrize("thing", numerics[:2] + regularizers, ids=lambda thing: thing.__name__)
def test_what_takes_an_array_says_of_what_shape(thing):
    assert re.search(r"shape\s`\(", inspect.getdoc(thing))


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    # Its example regularizes a network of `keras.applications`.
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "keras_mhe.models")) for n in modules],
)
def test_examples_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module)
    assert results.failed == 0
