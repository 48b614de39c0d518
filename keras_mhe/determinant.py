"""The Gram determinant of neurons under a Gaussian kernel, finite whatever their number."""

import functools
import math
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled
from keras_mhe.energy import with_gradient
from keras_mhe.pairs import gradient_from_pull, unit_neurons
from keras_mhe.strips import distinct

# What the definition adds to the diagonal.
_JITTER = 1e-6
# A pivot below this may be nothing but rounding in float32.
_LEAST_PIVOT = {"float32": 5e-5, "float64": 5e-7}


def _factor(gram: Any) -> Any:
    """The Cholesky factor of a matrix, with as little on its diagonal as rounding allows."""
    n, dtype = gram.shape[-1], keras.backend.standardize_dtype(gram.dtype)
    identity = ops.eye(n, dtype=dtype)

    def factor(jitter: Any) -> Any:
        return ops.linalg.cholesky(gram + jitter * identity)

    def unsafe(jitter: Any, factor: Any) -> Any:
        pivots = ops.square(ops.diagonal(factor, axis1=-2, axis2=-1))
        # Written so that a NaN is unsafe too.
        safe = pivots >= ops.maximum(jitter / 2, _LEAST_PIVOT[dtype])
        return ops.logical_not(ops.all(safe))

    def raised(jitter: Any, _: Any) -> tuple[Any, Any]:
        return 10.0 * jitter, factor(10.0 * jitter)

    jitter = ops.cast(_JITTER, dtype)
    return ops.while_loop(unsafe, raised, (jitter, factor(jitter)), maximum_iterations=10)[1]


def _log_determinant(gram: Any) -> tuple[Any, Any]:
    """The logarithm of the determinant, summed over leading axes, and its gradient, the inverse."""
    factor = _factor(gram)
    n, dtype = gram.shape[-1], keras.backend.standardize_dtype(gram.dtype)
    half = ops.log(ops.diagonal(factor, axis1=-2, axis2=-1))
    identity = ops.broadcast_to(ops.eye(n, dtype=dtype), gram.shape)
    inverse = ops.linalg.solve_triangular(factor, identity, lower=True)
    return 2.0 * ops.sum(half), ops.matmul(ops.swapaxes(inverse, -1, -2), inverse)


def _value_and_gradient(matrix: Any, half_space: bool) -> tuple[Any, Any]:
    *batch, _, n = matrix.shape
    share = 1.0 / math.prod(batch)
    unit, reciprocal = unit_neurons(matrix)
    cosine = ops.matmul(ops.swapaxes(unit, -1, -2), unit)
    others = distinct(n, ops.arange(n, dtype="int32"))
    near = ops.where(others, ops.exp(2.0 * cosine - 2.0), 1.0)
    if half_space:
        # The 2N points: their matrix falls apart into sums and differences of two blocks.
        far = ops.where(others, ops.exp(-2.0 * cosine - 2.0), math.exp(-4.0))
        even, even_inverse = _log_determinant(near + far)
        odd, odd_inverse = _log_determinant(near - far)
        value = even + odd
        slope = even_inverse * (near - far) + odd_inverse * (near + far)
    else:
        value, inverse = _log_determinant(near)
        slope = inverse * near
    slope = ops.where(others, slope, 0.0)
    # dK/dc = 2K, and both orders of a pair move its neurons.
    gradient = gradient_from_pull(unit, reciprocal, ops.matmul(unit, slope), -4.0 * share)
    return -share * value, gradient


@functools.lru_cache(maxsize=256)
def _compiled_determinant(shape: tuple[int, ...], dtype: str, half_space: bool) -> Any:
    return compiled(lambda matrix: _value_and_gradient(matrix, half_space), (shape, dtype))


def gram_energy(matrix: Any, half_space: bool) -> Any:
    """`-logdet(K + jitter I)` with `K_ij = exp(-|u_i - u_j|^2)`, the mean over groups."""
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_determinant(tuple(matrix.shape), dtype, half_space)
    return with_gradient(program, matrix, twice=False)
