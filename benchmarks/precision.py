"""Errors of value and gradient, and times, with matrix products of several precisions."""

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import ops

from benchmarks.contenders import compiled
from benchmarks.sweep import value_and_gradient
from benchmarks.timing import program_times, time_and_ratio
from keras_mhe._backend import matmul, on_cpu
from keras_mhe.energies import _pair_sums
from keras_mhe.energies._potential import PotentialSpec

# Crowded kernels, for which small distances dominate, and a usual one.
SHAPES = [(2, 300), (3, 1500), (8, 1500), (64, 1000), (2304, 256)]
QUICK_SHAPES = [(3, 200)]
_TF32_BITS, _BFLOAT16_BITS = 10, 7


def _rounded(x: Any, bits: int) -> Any:
    """Rounds float32 to a number of bits after the leading one, as hardware rounds factors."""
    dropped = 23 - bits
    # XLA would drop a conversion to fewer bits and back.
    number = ops.view(x, "int32")
    odd = ops.bitwise_and(ops.right_shift(number, dropped), 1)
    number = number + (2 ** (dropped - 1) - 1) + odd
    return ops.view(ops.bitwise_and(number, -(2**dropped)), "float32")


def _parts(x: Any, bits: int, count: int) -> list[Any]:
    """Splits float32 into numbers of fewer bits, which add up to it."""
    parts = []
    for _ in range(count):
        parts.append(_rounded(x, bits))
        x = x - parts[-1]
    return parts


def _emulated(a: Any, b: Any, bits: int, count: int) -> Any:
    """The product that hardware computes from the products of `count` parts of the factors."""
    left, right = _parts(a, bits, count), _parts(b, bits, count)
    pairs = [(i, j) for i in range(count) for j in range(count) if i + j < count]
    # Small products first.
    pairs.sort(key=sum, reverse=True)
    return functools.reduce(ops.add, [matmul(left[i], right[j]) for i, j in pairs])


def _products() -> dict[str, Callable[[Any, Any], Any]]:
    """Products of float32 by name. Without hardware that has them, they are emulated."""
    if keras.backend.backend() == "jax" and not on_cpu():
        import jax.numpy as jnp
        from jax.lax import DotAlgorithmPreset as Preset

        presets = {
            "TF32": Preset.TF32_TF32_F32,
            "TF32 x 3": Preset.TF32_TF32_F32_X3,
            "bfloat16 x 6": Preset.BF16_BF16_F32_X6,
        }
        return {
            "float32": matmul,
            **{n: functools.partial(jnp.matmul, precision=p) for n, p in presets.items()},
        }
    return {
        "float32": matmul,
        "TF32": functools.partial(_emulated, bits=_TF32_BITS, count=1),
        "TF32 x 3": functools.partial(_emulated, bits=_TF32_BITS, count=2),
        "bfloat16 x 6": functools.partial(_emulated, bits=_BFLOAT16_BITS, count=3),
    }


def _program(shape: tuple[int, int], cosines: Any, directions: Any) -> Callable[[Any], Any]:
    """Value and gradient with one product for cosines and one for the gradient's directions."""

    def product(a: Any, b: Any) -> Any:
        return (cosines if tuple(b.shape) == shape else directions)(a, b)

    def function(matrix: Any) -> Any:
        with mock.patch.object(_pair_sums, "matmul", product):
            return value_and_gradient(matrix, width=None)

    return compiled(function, shape)


def _definition(kernel: np.ndarray) -> tuple[float, np.ndarray]:
    """Half-space energy for s = 2 and its gradient in float64, from all pairs of neurons."""
    d, n = kernel.shape
    potential = PotentialSpec(half_space=True).potential(n, d, "float64")
    norm = np.linalg.norm(kernel.astype("float64"), axis=0)
    unit = kernel / norm
    cosine = unit.T @ unit
    values = potential.values(cosine)
    edge = 1.0 - potential.epsilon / 2
    near, far = (2.0 / (2.0 - 2.0 * np.minimum(x, edge)) ** 2 for x in (cosine, -cosine))
    slope = near - far
    for matrix in (values, slope):
        np.fill_diagonal(matrix, 0.0)
    value = potential.energy_from_mean(values.sum() / (n * (n - 1)), n)
    weight = 2 * potential.shares(n)[0] / (n * (n - 1))
    directions = unit @ slope
    tangent = directions - unit * np.sum(unit * directions, axis=0)
    # The package limits the gradient of short neurons in the same way.
    return value, weight * tangent / np.maximum(norm, 0.01 * np.sqrt(np.mean(norm**2)))


def measure(shape: tuple[int, int], quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each pair of precisions: relative errors, and seconds."""
    products = _products()
    pairs = [(name, name) for name in products]
    pairs += [("float32", name) for name in products if name != "float32"]
    array = np.random.default_rng(1).standard_normal(shape).astype("float32")
    kernel = ops.convert_to_tensor(array)
    value, gradient = _definition(array)
    programs = {pair: _program(shape, *(products[name] for name in pair)) for pair in pairs}
    times, _ = program_times(
        {str(pair): program for pair, program in programs.items()},
        kernel,
        rounds=3 if quick else 7,
        min_seconds=0.02,
    )
    rows = []
    for pair, program in programs.items():
        result = (np.asarray(ops.convert_to_numpy(x), "float64") for x in program(kernel))
        errors = [
            float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
            for got, expected in zip(result, (value, gradient), strict=True)
        ]
        rows.append(
            {
                "shape": list(shape),
                "cosines": pair[0],
                "directions": pair[1],
                "emulated": products["TF32"].func is _emulated,
                "value_error": errors[0],
                "gradient_error": errors[1],
                **time_and_ratio(times, str(pair), str(pairs[0])),
            }
        )
    return rows
