"""Models from files, without running code out of them."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Classes of Keras whose configs carry programs.
_PROGRAMS = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
# What models are made of; others of Keras's modules read files and fetch from the network.
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
_IN_PYTHON = "load it in Python, where you trust it, and call `keras_mhe.energy_report(model)`"


class ModelFileError(Exception):
    """Says in one sentence why no model can be had from a file."""


def _check_file(path: Path) -> bytes:
    """The first bytes of a file, or why there are none."""
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a .keras file.")
    if path.exists() and not path.is_file():
        # Opening a pipe would wait for somebody to write into it.
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
                raise ModelFileError(f"{path} is no Keras model: it has no config.json inside.")
            return json.loads(archive.read("config.json"))
    # Of encrypted and strangely compressed files as well: RuntimeError, NotImplementedError.
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        raise ModelFileError(f"{path} is damaged or cut short: {_sentence(error)}") from None


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every object that a config describes; losses and optimizers are taken out on the way."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            # Of models inside the model too, which Keras would compile.
            part.pop("compile_config", None)
            if isinstance(part.get("class_name"), str):
                yield part
            pending += part.values()
        elif isinstance(part, list):
            pending += part


def _is_known(part: dict[str, Any]) -> bool:
    """Whether an object is one of those that models of Keras and of this package are made of."""
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
        # Layers that only one of the applications has.
        if inner[:1] == ["applications"]:
            return name[0].isupper()
    if name == "function":
        return inner[:1] in (["activations"], ["ops"])
    # Functions of Keras, which load files among other things, have small letters.
    return (not inner or inner[0] in _MODULES) and (name[0].isupper() or name[:2] == "__")


def _check_config(path: Path, config: Any) -> None:
    """Says which of its objects cannot be made without running code."""
    objects = list(_objects(config))
    if not objects:
        raise ModelFileError(f"{path} is no Keras model: its config.json describes none.")
    names = {part["class_name"].rpartition(".")[2] for part in objects}
    programs = sorted(names & set(_PROGRAMS))
    if programs:
        raise ModelFileError(
            f"{path} holds a program ({', '.join(programs)}), which is not run: {_IN_PYTHON}."
        )
    foreign = sorted({part["class_name"] for part in objects if not _is_known(part)})
    if foreign:
        raise ModelFileError(
            f"{path} needs classes that are not of Keras ({', '.join(foreign)}): {_IN_PYTHON}."
        )


def _sentence(error: BaseException) -> str:
    """What an error comes from, as one line with a full stop."""
    text = str(error).partition(" Full object config:")[0]
    # Keras says first what failed, then, behind these words, why.
    for words in ("Exception encountered: ", "Error when deserializing"):
        text = text.rpartition(words)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].endswith((":", ":.")):
        del lines[0]
    line = lines[0].rstrip(".: ") if lines else ""
    if isinstance(error, KeyError):
        line = f"it lacks {line}"
    return (line[:300] + "…" if len(line) > 300 else line or type(error).__name__) + "."


def model_from_file(path: str | Path, weights: str | Path | None = None) -> keras.Model:
    """The model in a `.keras` file, if it is made of layers of Keras and of this package alone.

    Nothing in a file is run: models that hold programs or need other classes are refused, and the
    rest is made in Keras's safe mode, not compiled. An HDF5 file is read for its weights only.

    Args:
        path: the `.keras` file.
        weights: a `.weights.h5` or `.h5` file whose weights the model is given.

    Raises:
        ModelFileError: with one sentence, whatever is wrong with the files.
    """
    path = Path(path)
    head = _check_file(path)
    if head == _HDF5:
        raise ModelFileError(
            f"{path} is HDF5, of which only weights are read: give the model that they belong to "
            f"as well, `keras-mhe inspect MODEL.keras --weights {path}`."
        )
    if not head.startswith(b"PK") or path.suffix != ".keras":
        raise ModelFileError(f"{path} is no Keras model: expected a .keras file.")
    config = _config(path)
    _check_config(path, config)
    if weights is not None and _check_file(Path(weights)) != _HDF5:
        raise ModelFileError(f"{weights} holds no weights of Keras: expected an HDF5 file.")
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise ModelFileError(f"{path} cannot be loaded: {_sentence(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelFileError(f"{path} holds a {type(model).__name__}, not a model.")
    source = path if weights is None else weights
    try:
        model.load_weights(source)
    except Exception as error:
        what = "cannot be loaded" if weights is None else f"does not fit {path}"
        raise ModelFileError(f"{source} {what}: {_sentence(error)}") from error
    return model
