"""Reads files without unpacking more than their size allows."""

import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from keras_mhe.cli._errors import ModelFileError, sentence

# Keras compresses nothing. Files that users compressed become smaller, but hardly to a tenth.
_EXPANSION = 10
_SPARE_CONFIG, _SPARE_WEIGHTS = 10**6, 4 * 10**6
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
# Python limits what it unpacks at once for these methods only.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What damaged files raise. Encrypted files raise RuntimeError, unknown compressions raise
# NotImplementedError.
_DAMAGE = (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, KeyError, TypeError)


class _Section(io.RawIOBase):
    """A part of a file as a file. Seeking in an archive would read all bytes before."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _entry(archive: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    """An entry of an archive, if it can be unpacked step by step."""
    if name not in archive.namelist():
        raise ModelFileError(f"{path} is no Keras model: it has no {name}.")
    entry = archive.getinfo(name)
    if entry.compress_type not in _METHODS:
        raise ModelFileError(f"{path} is damaged, or its {name} has an unknown compression.")
    return entry


def read_config(path: Path) -> Any:
    """The config in a .keras file.

    Raises:
        ModelFileError: if there is none, or if it is much larger than the file.
    """
    most = path.stat().st_size + _SPARE_CONFIG
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_entry(archive, path, _CONFIG)) as file:
            # The size that the archive declares may be wrong.
            text = file.read(most + 1)
        if len(text) > most:
            raise ModelFileError(f"{path} has a {_CONFIG} of more than {most:,} bytes.")
        return json.loads(text)
    except _DAMAGE as error:
        raise ModelFileError(f"{path} is damaged or truncated: {sentence(error)}") from None


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ModelFileError(
            f"{path} would take {size:,} bytes in memory, far more than it has on the disk."
        )


@contextmanager
def _weights_file(path: Path, most: int) -> Iterator[Any]:
    """The HDF5 file with the weights of a .keras file, or a file that is one itself."""
    with path.open("rb") as file:
        # Keras decides by the name too.
        if not path.name.endswith(".keras"):
            yield file
            return
        with zipfile.ZipFile(file) as archive:
            entry = _entry(archive, path, _WEIGHTS)
            _check_size(path, entry.file_size, most)
            with archive.open(entry) as unpacked:
                if entry.compress_type != zipfile.ZIP_STORED:
                    # Seeking back would unpack everything again.
                    yield io.BytesIO(unpacked.read())
                    return
            # The lengths of the name and of the extra field in front of the content.
            file.seek(entry.header_offset + 26)
            lengths = struct.unpack("<HH", file.read(4))
            yield _Section(file, entry.header_offset + 30 + sum(lengths), entry.file_size)


def _objects(path: Path, root: Any) -> Iterator[Any]:
    """Every object in an HDF5 file once, even if it has several names."""
    seen: set[int] = set()
    pending = [root]
    while pending:
        found = pending.pop()
        yield found
        for name in found if isinstance(found, h5py.Group) else ():
            # Asking for the link does not follow it.
            if not isinstance(found.get(name, getlink=True), h5py.HardLink):
                raise ModelFileError(f"{path} has a link, {name}, which is never followed.")
            address = h5py.h5o.get_info(found[name].id).addr
            if address not in seen:
                seen.add(address)
                pending.append(found[name])


def _bytes(stored: Any, file_size: int) -> int:
    """The bytes that a dataset or an attribute takes in memory."""
    # A shape of None means no value at all.
    count = 0 if stored.shape is None else math.prod(stored.shape)
    if stored.dtype.hasobject:
        # Each value may be as long as the file, and several may be the same part of it.
        return count * file_size
    # HDF5 unpacks a whole chunk to read a part of it.
    return max(count, math.prod(getattr(stored, "chunks", None) or (0,))) * stored.dtype.itemsize


def _listed(group: Any) -> Iterator[Any]:
    """The datasets that a legacy file lists for a layer. Keras reads all of them at once."""
    for key in group.attrs if isinstance(group, h5py.Group) else ():
        if key.startswith("weight_names"):
            parts = (group.get(name) for name in np.atleast_1d(group.attrs[key]))
            yield from (part for part in parts if isinstance(part, h5py.Dataset))


def stored_numbers(path: Path) -> int:
    """The numbers in all datasets of a .keras file or of an HDF5 file, without reading them.

    Raises:
        ModelFileError: if the file is damaged, names other files to read from, or would take far
            more memory than it has bytes.
    """
    size = path.stat().st_size
    most = _SPARE_WEIGHTS + _EXPANSION * size
    total = numbers = 0
    try:
        with _weights_file(path, most) as file, h5py.File(file, "r") as weights:
            for found in _objects(path, weights):
                for key in found.attrs:
                    _check_size(path, _bytes(found.attrs.get_id(key), size), most)
                _check_size(path, sum(_bytes(part, size) for part in _listed(found)), most)
                if isinstance(found, h5py.Dataset):
                    if found.external or found.is_virtual:
                        raise ModelFileError(f"{path} names other files, which are never read.")
                    total += _bytes(found, size)
                    numbers += found.size or 0
                    _check_size(path, total, most)
    except _DAMAGE as error:
        raise ModelFileError(f"{path} cannot be loaded: {sentence(error)}") from None
    return numbers
