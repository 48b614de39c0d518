"""Checks the config of a model before anything in it is created."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_mhe.cli._errors import ModelFileError

# Classes of Keras whose configs contain code.
_CODE = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
# Modules of Keras with the parts of models. Others read files and use the network.
_MODULES = (
    "activations",
    "constraints",
    "dtype_policies",
    "initializers",
    "layers",
    "models",
    "ops",
    "quantizers",
    "regularizers",
)
_IN_PYTHON = "if you trust it, load it in Python and call `keras_mhe.energy_report(model)`"
# A layer takes up to 0.1 MB in memory, and has several objects. Keras writes 200 bytes for each.
_SPARE_OBJECTS, _BYTES_PER_OBJECT = 2000, 100
# NumPy gives each text in an array the memory of the longest one.
_MOST_TEXT = 10**8
_MOST_TOKENS = 10**7


def _remove_extras(part: dict[str, Any]) -> None:
    """Removes what Keras would compile or allocate, but a report does not need."""
    # Inner models have it too.
    part.pop("compile_config", None)
    config = part.get("config")
    if isinstance(config, dict):
        # The states of recurrent layers have the size of a batch, and are not saved.
        config.pop("stateful", None)
        if part.get("class_name") == "Normalization" and config.get("mean") is not None:
            # Keras would repeat these constants for every input.
            config.update(axis=None, mean=0.0, variance=1.0)


def _parts(config: Any) -> Iterator[Any]:
    """Every dict, list and value in a config, without what a report does not need."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            _remove_extras(part)
            pending += part.values()
        elif isinstance(part, list):
            pending += part
        yield part


def _is_symbolic(node: Any) -> bool:
    """Whether a call of a layer has a symbolic tensor. Otherwise Keras would compute it."""
    if isinstance(node, list):
        # Keras 2 writes a list of (layer, node, tensor).
        return bool(node)
    pending = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict) and "class_name" not in part:
            pending += part.values()
        elif isinstance(part, dict) and part["class_name"] == "__keras_tensor__":
            return True
    return False


def _is_number_array(part: dict[str, Any]) -> bool:
    """Whether an array has numbers. The type of an array of texts can have any size."""
    try:
        return str(keras.backend.standardize_dtype(part["config"]["dtype"])) != "string"
    except (TypeError, ValueError, KeyError):
        return False


def _excess(parts: list[Any], objects: list[dict[str, Any]], file_size: int) -> str:
    """What a config describes that would take far more memory than its file has bytes, or ""."""
    texts = [len(part) for part in parts if isinstance(part, str)]
    if len(texts) * max(texts, default=0) > _MOST_TEXT:
        return f"{len(texts):,} texts of up to {max(texts):,} letters"
    dicts = [part for part in parts if isinstance(part, dict)]
    calls = [part["inbound_nodes"] for part in dicts if "inbound_nodes" in part]
    nodes = [node for call in calls for node in (call if isinstance(call, list) else [None])]
    if len(objects) + len(nodes) > _SPARE_OBJECTS + file_size // _BYTES_PER_OBJECT:
        return f"{len(objects):,} objects and {len(nodes):,} calls of layers"
    if not all(map(_is_symbolic, nodes)):
        return "a call of a layer without an input"
    arrays = [part for part in objects if part["class_name"] in ("__numpy__", "__tensor__")]
    if not all(map(_is_number_array, arrays)):
        return "an array without numbers"
    tokens = [part["max_tokens"] for part in dicts if isinstance(part.get("max_tokens"), int)]
    if max(tokens, default=0) > _MOST_TOKENS:
        return f"a vocabulary of {max(tokens):,} words"
    return ""


def _is_known(part: dict[str, Any]) -> bool:
    """Whether an object is a part of models from Keras or from this package."""
    name, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
    if not name.isidentifier():
        return False
    if module is None:
        return not isinstance(registered, str) or ">" not in registered
    root, *inner = str(module).split(".")
    if root != "keras":
        return root in ("keras_mhe", "builtins")
    if inner[:1] == ["src"]:
        inner = inner[1:]
        # Layers that are defined in one of the applications.
        if inner[:1] == ["applications"]:
            return name[0].isupper()
    if name == "function":
        return inner[:1] in (["activations"], ["ops"])
    # Names in lowercase are functions of Keras; some of them load files.
    return (not inner or inner[0] in _MODULES) and (name[0].isupper() or name[:2] == "__")


def check_config(path: Path, config: Any) -> int:
    """Checks the objects of a config before they are created, and returns their number.

    Removes what Keras would compile or allocate, but a report does not need.

    Raises:
        ModelFileError: if an object is code, is not from Keras or this package, or if creating it
            would take far more memory than the file has bytes.
    """
    parts = list(_parts(config))
    objects = [p for p in parts if isinstance(p, dict) and isinstance(p.get("class_name"), str)]
    if not objects:
        raise ModelFileError(f"{path} is no Keras model: its config.json describes none.")
    names = {part["class_name"].rpartition(".")[2] for part in objects}
    code = sorted(names & set(_CODE))
    if code:
        raise ModelFileError(
            f"{path} contains code ({', '.join(code)}), which is never run: {_IN_PYTHON}."
        )
    foreign = sorted({part["class_name"] for part in objects if not _is_known(part)})
    if foreign:
        raise ModelFileError(
            f"{path} needs classes that do not belong to Keras ({', '.join(foreign)}): "
            f"{_IN_PYTHON}."
        )
    excess = _excess(parts, objects, path.stat().st_size)
    if excess:
        raise ModelFileError(f"{path} describes {excess}, which could take too much memory.")
    return len(objects)
