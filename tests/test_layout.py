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


def test_modules_have_at_most_300_lines():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def imported_names(tree):
    """The first part of the name of every module that a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_only_the_backend_module_imports_a_backend():
    backends = {"tensorflow", "jax", "torch"}
    users = {name for name, tree in TREES.items() if backends & set(imported_names(tree))}
    assert users
    assert {name.rpartition("._")[0] for name in users} == {"keras_mhe._backend"}


# Public methods of named tuples.
_ALLOWED = {"_replace", "_asdict"}
# Attributes of Keras without an underscore that its documentation does not mention.
_UNDOCUMENTED = {"train_function", "test_function", "make_train_function", "make_test_function"}


def test_only_keras_internals_uses_private_names_of_keras():
    def is_private(used):
        underscore = used[:1] == "_" and used[:2] != "__"
        return (underscore and used not in _ALLOWED) or used == "src" or used in _UNDOCUMENTED

    private = {name: set(filter(is_private, private_names(tree))) for name, tree in TREES.items()}
    assert private.pop("keras_mhe._keras_internals")
    assert {name: used for name, used in private.items() if used} == {}


def own_attributes(tree):
    """Private attributes that the methods of a module use on `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
            yield from [node.attr] if node.attr[:1] == "_" and node.attr[:2] != "__" else []


def test_subclasses_do_not_use_private_attributes_of_keras_bases():
    bases = (keras.layers.Wrapper, keras.callbacks.Callback, keras.Regularizer)
    inherited = {
        (name, attribute)
        for name, tree in TREES.items()
        for attribute in own_attributes(tree)
        if any(hasattr(base, attribute) for base in bases)
    }
    assert inherited == set()


def test_package_lists_exactly_its_public_names():
    packages = {"analysis", "energies", "initializers", "kernels", "layers"}
    packages |= {"models", "plots", "regularizers"}
    assert set(dir(keras_mhe)) == {*keras_mhe.__all__, *packages}
    for name in dir(keras_mhe):
        getattr(keras_mhe, name)


@pytest.mark.parametrize(
    "name",
    [
        "analysis",
        "energies",
        "initializers",
        "kernels",
        "layers",
        "models",
        "plots",
        "regularizers",
    ],
)
def test_subpackages_define_their_public_names(name):
    package = getattr(keras_mhe, name)
    assert package.__all__ == sorted(package.__all__, key=lambda x: (not x.isupper(), x))
    for public in package.__all__:
        getattr(package, public)
    # What a completion by the Tab key shows.
    shown = {public for public in dir(package) if not public.startswith("_")}
    assert shown == set(package.__all__)
