"""Loads models from files without running code from the files."""

from pathlib import Path

import keras

from keras_mhe.cli._budget import OverBudgetError, limited_creation
from keras_mhe.cli._config import check_config
from keras_mhe.cli._errors import ModelFileError, sentence
from keras_mhe.cli._stored import read_config, stored_numbers

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Files have no factors of LoRA, which are smaller than their kernel, and not all states.
_FACTOR, _SPARE_NUMBERS = 2, 10**6
# Keras creates all tensors of a Sequential model again for each of its layers.
_SPARE_TENSORS, _MOST_TENSORS = 10**5, 10**6


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


def model_from_file(path: str | Path, weights: str | Path | None = None) -> keras.Model:
    """Loads a model from a `.keras` file, if all its classes are from Keras or this package.

    The function never runs code from a file. It refuses models that contain code or need other
    classes, creates all others in the safe mode of Keras, and does not compile them. It reads only
    weights from an HDF5 file. It refuses models that would take far more memory than their files.

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
    config = read_config(path)
    objects = check_config(path, config)
    if weights is not None and _check_file(Path(weights)) != _HDF5:
        raise ModelFileError(f"{weights} contains no weights of Keras: expected an HDF5 file.")
    source = path if weights is None else Path(weights)
    held = stored_numbers(source)
    numbers, tensors = _SPARE_NUMBERS + _FACTOR * held, _SPARE_TENSORS + objects**2
    try:
        with limited_creation(numbers, min(tensors, _MOST_TENSORS)):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except OverBudgetError as error:
        holder = "" if source == path else f"{source} "
        raise ModelFileError(
            f"{path} describes {error}, but {holder}holds only {held:,} weights."
        ) from None
    except Exception as error:
        raise ModelFileError(f"{path} cannot be loaded: {sentence(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelFileError(f"{path} contains a {type(model).__name__}, not a model.")
    try:
        model.load_weights(source)
    except Exception as error:
        problem = "cannot be loaded" if weights is None else f"does not fit {path}"
        raise ModelFileError(f"{source} {problem}: {sentence(error)}") from error
    return model
