"""Loads models from files without running code from the files."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

_HDF5 = b"\x89HDF\r\n\x1a\n"
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


class ModelFileError(Exception):
    """The reason why a file gives no model, in one sentence."""


def _sentence(error: BaseException) -> str:
    """The cause of an error as one line that ends with a period."""
    text = str(error).partition(" Full object config:")[0]
    # Keras names first what failed. The reason follows these words.
    for words in ("Exception encountered: ", "Error when deserializing"):
        text = text.rpartition(words)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].endswith((":", ":.")):
        del lines[0]
    line = lines[0].rstrip(".: ") if lines else ""
    if isinstance(error, KeyError):
        line = f"{line} is missing"
    return (line[:300] + "…" if len(line) > 300 else line or type(error).__name__) + "."


def _check_file(path: Path) -> bytes:
    """Returns the first bytes of a file. Raises if it cannot be read."""
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a .keras file.")
    if path.exists() and not path.is_file():
        # Opening a pipe would block until another process writes into it.
        raise ModelFileError(f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist.") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise ModelFileError(f"{path} is empty.")
    return head


def _config(path: Path) -> Any:
    """The config in a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "config.json" not in archive.namelist():
                raise ModelFileError(f"{path} is no Keras model: it has no config.json.")
            return json.loads(archive.read("config.json"))
    # Encrypted files raise RuntimeError, unknown compressions raise NotImplementedError.
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        raise ModelFileError(f"{path} is damaged or truncated: {_sentence(error)}") from None


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that a config describes. Removes losses and optimizers from the config."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            # Also in the configs of inner models, which Keras would compile.
            part.pop("compile_config", None)
            if isinstance(part.get("class_name"), str):
                yield part
            pending += part.values()
        elif isinstance(part, list):
            pending += part


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


def _check_config(path: Path, config: Any) -> None:
    """Raises if a config contains objects that cannot be created without running code."""
    objects = list(_objects(config))
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


def model_from_file(path: str | Path, weights: str | Path | None = None) -> keras.Model:
    """Loads a model from a `.keras` file, if all its classes are from Keras or this package.

    The function never runs code from a file. It refuses models that contain code or need other
    classes, creates all others in the safe mode of Keras, and does not compile them. It reads only
    weights from an HDF5 file.

    Args:
        path: the `.keras` file.
        weights: a `.weights.h5` or `.h5` file whose weights replace those of the model.

    Raises:
        ModelFileError: if a file cannot be used. The message is one sentence.
    """
    path = Path(path)
    head = _check_file(path)
    if head == _HDF5:
        raise ModelFileError(
            f"{path} is an HDF5 file, from which only weights are read: also give the model, "
            f"`keras-mhe inspect MODEL.keras --weights {path}`."
        )
    if not head.startswith(b"PK") or path.suffix != ".keras":
        raise ModelFileError(f"{path} is no Keras model: expected a .keras file.")
    config = _config(path)
    _check_config(path, config)
    if weights is not None and _check_file(Path(weights)) != _HDF5:
        raise ModelFileError(f"{weights} contains no weights of Keras: expected an HDF5 file.")
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise ModelFileError(f"{path} cannot be loaded: {_sentence(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelFileError(f"{path} contains a {type(model).__name__}, not a model.")
    source = path if weights is None else weights
    try:
        model.load_weights(source)
    except Exception as error:
        problem = "cannot be loaded" if weights is None else f"does not fit {path}"
        raise ModelFileError(f"{source} {problem}: {_sentence(error)}") from error
    return model
