"""Real images: scikit-learn's digits, and CIFAR from Keras, a folder or an archive."""

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
    """Images, `(count, height, width, channels)`, and labels: to train on and to test on."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits, `(1797, 8, 8, 1)` from 0 to 1, and which they are."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32").reshape(-1, 8, 8, 1), labels


def _decoded(file: io.BytesIO | Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def _archive(path: Path) -> Images:
    """`x_train`, `y_train`, `x_test` and `y_test`, or files of images.

    Those are `train_jpeg`, the bytes of all files, of which file k is from `train_offsets[k]` to
    the next, and `train_labels`; the same of `test`.
    """
    parts = []
    with np.load(path) as arrays:
        if "x_train" in arrays:
            x, y, x_test, y_test = (arrays[f"{a}_{part}"] for part in _PARTS for a in "xy")
            return Images(x, y.reshape(-1), x_test, y_test.reshape(-1))
        if "train_jpeg" not in arrays:
            raise InputError(
                "Archives have `x_train`, `y_train`, `x_test` and `y_test`, or `train_jpeg`, "
                "`train_offsets` and `train_labels` and the same of `test`. "
                f"Received: {path} with {', '.join(arrays)}"
            )
        for name in _PARTS:
            files, ends = arrays[f"{name}_jpeg"].tobytes(), arrays[f"{name}_offsets"]
            jpegs = [io.BytesIO(files[start:end]) for start, end in itertools.pairwise(ends)]
            parts.append(np.stack([_decoded(jpeg) for jpeg in jpegs]))
            parts.append(arrays[f"{name}_labels"].astype("int64"))
    return Images(*parts)


def _folder(path: Path) -> Images:
    """A folder `train` and one `test`, in each a folder of images for every class."""
    parts = []
    classes = sorted(child.name for child in (path / "train").iterdir() if child.is_dir())
    for name in _PARTS:
        # Hidden files are the file manager's.
        files = [sorted((path / name / label).glob("[!.]*")) for label in classes]
        parts.append(np.stack([_decoded(file) for group in files for file in group]))
        parts.append(np.repeat(np.arange(len(classes)), [len(group) for group in files]))
    return Images(*parts)


def _enlarged_digits() -> Images:
    """Digits as colour images of 32 x 32, the last 500 to test on."""
    images, labels = digits()
    images = np.round(255 * images).astype("uint8").repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return Images(images[:-500], labels[:-500], images[-500:], labels[-500:])


@functools.cache
def cifar(source: str) -> Images:
    """CIFAR as bytes.

    Args:
        source: `"cifar10"` or `"cifar100"` of Keras, which are downloaded; the path of an archive
            or of a folder; or `"digits"` in their place.
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
        'Images are "digits", "cifar10", "cifar100", an .npz archive or a folder with `train` and '
        f"`test` in it. Received: {source}"
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes as the papers scale them."""
    return (images.astype("float32") - 127.5) / 128


def by_name(sources: list[str]) -> dict[str, str]:
    """Sources by what results call them: where they lie is nobody's business."""
    named: dict[str, str] = {}
    for source in sources:
        name = Path(source).stem
        taken = name in ("digits", *_KERAS) and name != source
        if taken or named.setdefault(name, source) != source:
            raise InputError(
                "Results know data by the last part of their path, and this one is taken. "
                f"Received: {source}"
            )
    return named
