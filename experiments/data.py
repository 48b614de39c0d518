"""Loads images: scikit-learn's digits, CIFAR from Keras, a folder or an archive."""

import functools
import io
import itertools
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from experiments.experiment import InputError

_KERAS = {"cifar10": keras.datasets.cifar10, "cifar100": keras.datasets.cifar100}
_PARTS = ("train", "test")


class Images(NamedTuple):
    """Training and test images, `(count, height, width, channels)`, with their labels."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@functools.cache
def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns 1,797 handwritten digits, `(1797, 8, 8, 1)` from 0 to 1, and their labels."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32").reshape(-1, 8, 8, 1), labels


def split_digits(seed: int) -> Images:
    """Returns 1,000 digits that the seed selects for training, and all others for testing."""
    x, y = digit_images()
    order = np.random.default_rng(seed).permutation(len(y))
    chosen, rest = order[:1000], order[1000:]
    return Images(x[chosen], y[chosen], x[rest], y[rest])


def _decode(file: io.BytesIO | Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def _archive(path: Path) -> Images:
    """Reads an archive of arrays or of encoded images.

    Arrays are `x_train`, `y_train`, `x_test` and `y_test`. Encoded images are `train_jpeg`, the
    bytes of all files, where file k begins at `train_offsets[k]`, and `train_labels`; `test` has
    the same three.
    """
    parts = []
    with np.load(path) as arrays:
        if "x_train" in arrays:
            x, y, x_test, y_test = (arrays[f"{a}_{part}"] for part in _PARTS for a in "xy")
            return Images(x, y.reshape(-1), x_test, y_test.reshape(-1))
        if "train_jpeg" not in arrays:
            raise InputError(
                "An archive must hold `x_train`, `y_train`, `x_test` and `y_test`, or "
                "`train_jpeg`, `train_offsets` and `train_labels` and the same for `test`. "
                f"Received: {path} with {', '.join(arrays)}"
            )
        for name in _PARTS:
            files, ends = arrays[f"{name}_jpeg"].tobytes(), arrays[f"{name}_offsets"]
            jpegs = [io.BytesIO(files[start:end]) for start, end in itertools.pairwise(ends)]
            parts.append(np.stack([_decode(jpeg) for jpeg in jpegs]))
            parts.append(arrays[f"{name}_labels"].astype("int64"))
    return Images(*parts)


def _folder(path: Path) -> Images:
    """Reads the folders `train` and `test`, which hold a folder of images for every class."""
    parts = []
    classes = sorted(child.name for child in (path / "train").iterdir() if child.is_dir())
    for name in _PARTS:
        # Hidden files belong to file managers.
        files = [sorted((path / name / label).glob("[!.]*")) for label in classes]
        parts.append(np.stack([_decode(file) for group in files for file in group]))
        parts.append(np.repeat(np.arange(len(classes)), [len(group) for group in files]))
    return Images(*parts)


def _enlarged_digits() -> Images:
    """Returns digits as color images of 32 x 32; the last 500 are the test images."""
    images, labels = digit_images()
    images = np.round(255 * images).astype("uint8").repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return Images(images[:-500], labels[:-500], images[-500:], labels[-500:])


@functools.cache
def load_images(source: str) -> Images:
    """Loads images as bytes.

    Args:
        source: `"cifar10"` or `"cifar100"`, which Keras downloads; the path of an archive or of a
            folder; or `"digits"`, which needs no file.
    """
    if source == "digits":
        return _enlarged_digits()
    if source in _KERAS:
        (x, y), (x_test, y_test) = _KERAS[source].load_data()
        return Images(x, y[:, 0], x_test, y_test[:, 0])
    path = Path(source)
    if path.suffix == ".npz" and path.is_file():
        return _archive(path)
    if all((path / part).is_dir() for part in _PARTS):
        return _folder(path)
    raise InputError(
        'Data must be "digits", "cifar10", "cifar100", an .npz archive, or a folder that holds '
        f"`train` and `test`. Received: {source}"
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Scales bytes as the papers do."""
    return (images.astype("float32") - 127.5) / 128


def sources_by_name(sources: list[str]) -> dict[str, str]:
    """Returns sources by name. Results record the name of a data set, not its path."""
    named: dict[str, str] = {}
    for source in sources:
        name = Path(source).stem
        taken = name in ("digits", *_KERAS) and name != source
        if taken or named.setdefault(name, source) != source:
            raise InputError(
                "Results record the last part of the path of data. Another source has the same "
                f"last part. Received: {source}"
            )
    return named
