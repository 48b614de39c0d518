"""Files are refused if unpacking or reading them would take far more memory than their size."""

import json
import struct
import zipfile

import h5py
import numpy as np
import pytest
from model_files import error_message, saved_model, with_parts

from keras_mhe.cli._files import model_from_file
from keras_mhe.cli._stored import stored_numbers

pytestmark = pytest.mark.once

_KERNEL = "layers/dense/vars/0"


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path)


def padded(count):
    """A function that adds blanks to a config."""
    return lambda config: json.dumps(config) + " " * count


def hdf5(folder, write, name="other.weights.h5"):
    """An HDF5 file that a function writes."""
    path = folder / name
    with h5py.File(path, "w") as file:
        write(file)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_numbers_in_the_weights_of_a_file_are_counted_without_the_compression(model, method):
    # Two kernels, two biases.
    assert stored_numbers(with_parts(model, method=method)) == 8 * 4 + 4 + 4 * 3 + 3


def test_numbers_of_a_dataset_with_two_names_count_once(tmp_path):
    def write(file):
        file["a"] = np.ones((3, 4))
        file["b"] = file["a"]
        file["group/itself"] = file["/"]
        file["none"] = h5py.Empty("f")

    assert stored_numbers(hdf5(tmp_path, write)) == 12


def test_config_that_is_much_larger_than_its_file_is_refused(model):
    path = with_parts(model, padded(10**7))
    assert path.stat().st_size < 50_000
    assert "a config.json of more than 1,0" in error_message(path)


def test_config_that_is_larger_than_the_archive_says_is_refused(model):
    path = with_parts(model, padded(10**7))
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("config.json").file_size
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 3000)))
    assert "damaged" in error_message(path)


def test_large_config_that_is_not_compressed_is_read(model):
    model_from_file(with_parts(model, padded(3 * 10**6), method=zipfile.ZIP_STORED))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_python_does_not_limit_are_refused(model, method):
    assert "an unknown compression" in error_message(with_parts(model, method=method))


def test_weights_that_are_much_larger_than_their_file_are_refused(model):
    path = with_parts(model, weights=lambda content: content + bytes(10**7))
    assert "bytes in memory" in error_message(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_weights_are_refused_in_every_archive(model, method):
    path = with_parts(model, weights=lambda content: content[:500], method=method)
    assert "cannot be loaded" in error_message(path)


def test_archive_without_weights_is_refused(model):
    with zipfile.ZipFile(model) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("config.json", config)
    assert "it has no model.weights.h5" in error_message(model)


def compressed(file):
    file.create_dataset(_KERNEL, (8, 10**9), "f", compression="gzip", chunks=(8, 10**5))


def never_written(file):
    file.create_dataset(_KERNEL, (8, 10**9), "f")


def large_chunks(file):
    file.create_dataset(_KERNEL, (8, 4), "f", maxshape=(None, None), chunks=(8, 10**8))


def texts(file):
    file.create_dataset(_KERNEL, (10**5,), h5py.string_dtype())


def attribute_of_texts(file):
    names = ["a" * 60_000] + ["b"] * 3000
    file.create_group("layers").attrs.create("names", names, dtype=h5py.string_dtype())


def names_of_one_dataset(file):
    group = file.create_group("hidden")
    group["kernel"] = np.ones(10**5, "float32")
    group.attrs["weight_names"] = np.array([b"kernel"] * 5000)


@pytest.mark.parametrize(
    "write",
    [compressed, never_written, large_chunks, texts, attribute_of_texts, names_of_one_dataset],
)
def test_weights_that_take_far_more_memory_than_disk_are_refused(model, tmp_path, write):
    path = hdf5(tmp_path, write)
    assert path.stat().st_size < 10**6
    assert "bytes in memory, far more than it has" in error_message(model, path)
    # Keras reads the same datasets from an archive.
    inner = with_parts(model, weights=lambda _: path.read_bytes())
    assert "bytes in memory, far more than it has" in error_message(inner)


def external_link(file):
    file[_KERNEL] = h5py.ExternalLink("model.weights.h5", "/layers")


def soft_link(file):
    file[_KERNEL] = h5py.SoftLink("/layers")


def external_storage(file):
    file.create_dataset(_KERNEL, (8, 4), "f", external=[("secret", 0, 128)])


def virtual_dataset(file):
    layout = h5py.VirtualLayout((8, 4), "f")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (8, 4))
    file.create_virtual_dataset(_KERNEL, layout)


@pytest.mark.parametrize("write", [external_link, soft_link, external_storage, virtual_dataset])
def test_weights_in_other_places_are_never_read(model, tmp_path, write):
    assert ", which" in (message := error_message(model, hdf5(tmp_path, write)))
    assert message.endswith(("is never followed.", "are never read."))
