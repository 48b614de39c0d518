"""The structure of the package: imports, sizes, private names and public names of modules."""

import ast
import graphlib
from pathlib import Path

import keras
import pytest

import keras_mhe

pytestmark = pytest.mark.once

root = Path(keras_mhe.__file__).parent
MODULES = {
    ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in root.rglob("*.py")
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def imported_modules(name):
    """Returns the modules of the package that a module imports, with their packages."""
    found = set()
    for node in TREES[name].body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_mhe"):
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                found.add(longer if longer in MODULES else node.module)
    packages = {module.rsplit(".", 1)[0] for module in found if module.count(".") > 1}
    ancestors = {name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)} | {"keras_mhe"}
    return (found | packages) - ancestors - {name}


def private_names(tree):
    """Yields the names that a module uses, except attributes of `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            yield from [] if own else [node.attr]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr"):
            yield from [name.value for name in node.args[1:2] if isinstance(name, ast.Constant)]
        elif isinstance(node, ast.ImportFrom) and not node.module.startswith("keras_mhe"):
            yield from [*node.module.split("."), *(alias.name for alias in node.names)]


def test_modules_import_without_cycles():
    graphlib.TopologicalSorter({name: imported_modules(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_at_most_300_lines(name):
    assert len(MODULES[name].read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("name", MODULES)
def test_only_the_backend_module_imports_a_backend(name):
    names = {"tensorflow", "jax", "torch"}
    used = {
        alias.name.partition(".")[0]
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    used |= {
        node.module.partition(".")[0]
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom)
    }
    assert name == "keras_mhe._backend" or not used & names


# Public methods of named tuples.
_ALLOWED = {"_replace", "_asdict"}
# Attributes of Keras without an underscore that its documentation does not mention.
_UNDOCUMENTED = {"train_function", "test_function", "make_train_function", "make_test_function"}


@pytest.mark.parametrize("name", MODULES)
def test_only_keras_internals_uses_private_names_of_keras(name):
    private = {
        used
        for used in private_names(TREES[name])
        if (used[:1] == "_" and used[:2] != "__") or used == "src" or used in _UNDOCUMENTED
    }
    assert name == "keras_mhe._keras_internals" or not private - _ALLOWED


@pytest.mark.parametrize("name", MODULES)
def test_subclasses_do_not_use_private_attributes_of_keras_bases(name):
    own = {
        node.attr
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr[:1] == "_"
        and node.attr[:2] != "__"
    }
    bases = (keras.layers.Wrapper, keras.callbacks.Callback, keras.Regularizer)
    assert not [attribute for attribute in own for base in bases if hasattr(base, attribute)]


def test_package_lists_exactly_its_public_names():
    packages = {"analysis", "energies", "kernels", "layers", "models", "plots", "regularizers"}
    assert set(dir(keras_mhe)) == {*keras_mhe.__all__, *packages}
    for name in dir(keras_mhe):
        getattr(keras_mhe, name)


@pytest.mark.parametrize("name", ["analysis", "energies", "kernels", "models", "regularizers"])
def test_subpackages_define_their_public_names(name):
    package = getattr(keras_mhe, name)
    assert package.__all__ == sorted(package.__all__, key=lambda x: (not x.isupper(), x))
    for public in package.__all__:
        getattr(package, public)
