"""Kernels are read as matrices with one neuron in each column; other inputs raise errors."""

import keras
import numpy as np
import pytest

from keras_mhe.energies import _neurons
from keras_mhe.energies._neurons import check_axes, neuron_matrix, unit_neurons


def read(kernel, **options):
    return keras.ops.convert_to_numpy(neuron_matrix(kernel, **options))


def test_last_axis_indexes_neurons_by_default():
    kernel = np.arange(24.0, dtype="float32").reshape(2, 3, 4)
    np.testing.assert_array_equal(read(kernel), kernel.reshape(6, 4))


@pytest.mark.parametrize("axis", [0, 1, -2, (0,), [1]])
def test_any_axis_can_index_neurons(axis):
    kernel = np.arange(24.0, dtype="float32").reshape(2, 3, 4)
    position = axis if isinstance(axis, int) else axis[0]
    expected = np.moveaxis(kernel, position, -1).reshape(-1, kernel.shape[position])
    np.testing.assert_array_equal(read(kernel, neuron_axis=axis), expected)


def test_several_axes_index_neurons_in_the_given_order():
    kernel = np.arange(24.0, dtype="float32").reshape(2, 3, 4)
    expected = kernel.transpose(1, 2, 0).reshape(3, 8)
    np.testing.assert_array_equal(read(kernel, neuron_axis=(2, 0)), expected)


def test_groups_are_contiguous():
    kernel = np.arange(24.0, dtype="float32").reshape(4, 6)
    expected = np.stack([kernel[:, :3], kernel[:, 3:]])
    np.testing.assert_array_equal(read(kernel, groups=2), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_kernels_up_to_float32_are_read_in_float32(dtype):
    matrix = neuron_matrix(keras.ops.ones((2, 3), dtype))
    assert keras.backend.standardize_dtype(matrix.dtype) == "float32"


def test_float64_kernels_stay_float64(float64):
    matrix = neuron_matrix(np.ones((2, 3), "float64"))
    assert keras.backend.standardize_dtype(matrix.dtype) == "float64"


@pytest.mark.parametrize(
    ("neuron_axis", "groups", "error", "message"),
    [
        ("last", None, TypeError, "neuron_axis='last'"),
        (1.5, None, TypeError, "neuron_axis=1.5"),
        ((0, "x"), None, TypeError, "neuron_axis=(0, 'x')"),
        (True, None, TypeError, "neuron_axis=True"),
        (b"1", None, TypeError, "neuron_axis=b'1'"),
        (None, True, TypeError, "groups=True"),
        ((), None, ValueError, "at least one axis"),
        ((1, 1), None, ValueError, "each of them once"),
        (None, 0, ValueError, "groups=0"),
        (None, -2, ValueError, "groups=-2"),
        (None, 2.0, TypeError, "groups=2.0"),
    ],
)
def test_invalid_arguments_are_named_without_a_kernel(neuron_axis, groups, error, message):
    with pytest.raises(error) as raised:
        check_axes(neuron_axis, groups)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((), {}, "at least two axes"),
        ((3,), {}, "at least two axes"),
        ((3, 0), {}, "positive size"),
        ((3, 4), {"neuron_axis": 2}, "its 2 axes are -2 to 1"),
        ((3, 4), {"neuron_axis": -3}, "its 2 axes are -2 to 1"),
        ((3, 4), {"neuron_axis": (1, -1)}, "different axes"),
        ((3, 4), {"neuron_axis": (0, 1)}, "leave one for coordinates"),
        ((3, 4), {"groups": 3}, "must divide the number of neurons, 4"),
    ],
)
def test_errors_about_kernels_contain_the_shape(shape, options, message):
    with pytest.raises(ValueError, match="Received: ") as raised:
        neuron_matrix(np.ones(shape, "float32"), **options)
    assert message in str(raised.value)
    assert str(shape) in str(raised.value)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_kernels_must_be_floating_point(dtype):
    with pytest.raises(TypeError, match=f"kernel.dtype={dtype}"):
        neuron_matrix(np.ones((2, 2), dtype))


@pytest.mark.skipif(not _neurons.has_compiler(), reason="PyTorch rounds roots correctly")
def test_lengths_on_a_device_do_not_depend_on_how_roots_are_rounded(monkeypatch):
    """A root that is too large by 1e-5, as a coarse model of a GPU."""
    root = keras.ops.sqrt
    monkeypatch.setattr(_neurons.ops, "sqrt", lambda x: root(x) * (1 + 1e-5))
    kernel = np.random.default_rng(0).standard_normal((3, 50)).astype("float32")
    kernel[:, 7] = 0.0
    for cpu, error in ((True, 1e-5), (False, 0.0)):
        monkeypatch.setattr(_neurons, "on_cpu", lambda cpu=cpu: cpu)
        lengths = np.linalg.norm(keras.ops.convert_to_numpy(unit_neurons(kernel)[0]), axis=0)
        np.testing.assert_allclose(np.delete(lengths, 7), 1 - error, atol=3e-7)
        assert lengths[7] == 0
