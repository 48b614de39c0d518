"""Random projections by signs, computed by a fast transform."""

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import matmul, normals
from keras_mhe._random import seed_of
from keras_mhe._typing import Tensor
from keras_mhe.energies._potential import Potential
from keras_mhe.regularizers._projection_steps import value_and_tangent_through

# The rows of one projection are at most this share of the rows of the transform. With a larger
# share, rows are less independent of each other, and angles vary less than with normal numbers.
_LARGEST_SHARE = 1 / 32
# Paley's construction gives Hadamard matrices of order `prime + 1`.
_PRIMES = (11, 19)


def _paley(prime: int) -> np.ndarray:
    squares = {k * k % prime for k in range(1, prime)}
    symbol = np.array([0] + [1 if k in squares else -1 for k in range(1, prime)])
    matrix = np.ones((prime + 1, prime + 1))
    index = np.arange(prime)
    matrix[1:, 1:] = symbol[(index[:, None] - index) % prime] + np.eye(prime)
    matrix[1:, 0] = -1
    return matrix


@functools.cache
def _hadamard(order: int) -> np.ndarray:
    """A matrix of signs with orthogonal rows; its order is 1, 12 or 20 times a power of two."""
    if order == 1:
        return np.ones((1, 1), "float32")
    if order - 1 in _PRIMES:
        return _paley(order - 1).astype("float32")
    half = _hadamard(order // 2)
    return np.block([[half, half], [half, -half]])


@functools.cache
def _factors(size: int) -> tuple[int, int]:
    """The orders of two Hadamard matrices whose product is at least `size`, cheapest first."""
    orders = [m << k for m in (1, *(prime + 1 for prime in _PRIMES)) for k in range(24)]
    pairs = [(a, b) for a in orders for b in orders if size <= a * b < 4 * size]
    return min(pairs, key=lambda pair: (pair[0] * pair[1] * (pair[0] + pair[1]), pair))


@functools.cache
def _columns(d: int, rows: int) -> np.ndarray:
    """Sorted indices of d columns, random but constant: the first ones have many equal rows."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:d]).astype("int32")


@dataclass(frozen=True)
class SignTransform:
    """`H D`, with d columns of the Kronecker product of two Hadamard matrices and signs D.

    Each row is a vector of random signs, so `E[(PW)^T PW] = dim * W^T W` for any `dim` rows P. A
    product with all rows takes `2 (a + b) a b` operations for each neuron, in place of `2 d a b`.

    Source: Ailon and Chazelle (2009), "The fast Johnson-Lindenstrauss transform and approximate
    nearest neighbors", SIAM Journal on Computing.

    Attributes:
        d: number of coordinates of a neuron.
        a: order of the first Hadamard matrix.
        b: order of the second one; `a * b` is at least d.
    """

    d: int
    a: int
    b: int

    @classmethod
    def of(cls, d: int, count: int, dim: int) -> "SignTransform":
        """The transform for `count` projections to `dim` dimensions."""
        return cls(d, *_factors(max(d, count * dim, round(dim / _LARGEST_SHARE))))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.a * self.b

    def _matrices(self, like: Tensor) -> list[Tensor]:
        dtype = keras.backend.standardize_dtype(like.dtype)
        return [ops.convert_to_tensor(_hadamard(order), dtype) for order in (self.a, self.b)]

    def _spread(self, matrix: Tensor) -> Tensor:
        """Places coordinates at the chosen columns, and zeros at the others."""
        if self.d == self.rows:
            return matrix
        source = np.full(self.rows, self.d, "int32")
        source[_columns(self.d, self.rows)] = np.arange(self.d)
        zero = ops.zeros_like(matrix[..., :1, :])
        return ops.take(ops.concatenate([matrix, zero], axis=-2), source, axis=-2)

    def project(self, matrix: Tensor, signs: Tensor, chosen: Tensor) -> Tensor:
        """Some rows of the transform, times the neurons.

        Args:
            matrix: tensor of shape `(..., d, n)`.
            signs: the diagonal of D, of shape `(d,)`.
            chosen: indices of rows.

        Returns:
            A tensor of shape `(..., len(chosen), n)`.
        """
        *batch, _, n = matrix.shape
        first, second = self._matrices(matrix)
        x = self._spread(matrix * signs[:, None])
        x = matmul(first, ops.reshape(x, (*batch, self.a, self.b * n)))
        x = matmul(second, ops.reshape(x, (*batch, self.a, self.b, n)))
        return ops.take(ops.reshape(x, (*batch, self.rows, n)), chosen, axis=-2)

    def project_back(self, points: Tensor, signs: Tensor, order: Tensor) -> Tensor:
        """The transpose of `project`.

        Args:
            points: tensor of shape `(..., m, n)`.
            signs: as in `project`.
            order: all indices of rows, the m chosen ones first.

        Returns:
            A tensor of shape `(..., d, n)`.
        """
        *batch, m, n = points.shape
        first, second = self._matrices(points)
        x = ops.pad(points, [(0, 0)] * len(batch) + [(0, self.rows - m), (0, 0)])
        x = ops.reshape(ops.take(x, ops.argsort(order), axis=-2), (*batch, self.a, self.b, n))
        x = ops.reshape(matmul(ops.transpose(second), x), (*batch, self.a, self.b * n))
        x = ops.reshape(matmul(ops.transpose(first), x), (*batch, self.rows, n))
        if self.d < self.rows:
            x = ops.take(x, _columns(self.d, self.rows), axis=-2)
        return x * signs[:, None]

    def draw(self, dtype: str, number: Any, stream: Any) -> tuple[Tensor, Tensor]:
        """Signs of the coordinates, and all indices of rows in random order.

        Args:
            dtype: type of the signs.
            number: as in `seed_of`.
            stream: as in `seed_of`.
        """
        number = ops.convert_to_tensor(number, "int32")
        positive = normals((self.d,), dtype, seed_of(number, stream)) > 0
        # Signs and order must not come from the same bits.
        other = seed_of(ops.bitwise_xor(number, ops.convert_to_tensor(1, "int32")), stream)
        order = ops.argsort(normals((self.rows,), dtype, other))
        return ops.where(positive, ops.ones((), dtype), -ops.ones((), dtype)), order


def sign_projections(d: int, count: int, dim: int, dtype: str, number: Any, stream: Any) -> Tensor:
    """The projections of `sign_projected_value_and_tangent`, of shape `(count, dim, d)`."""
    transform = SignTransform.of(d, count, dim)
    signs, order = transform.draw(dtype, number, stream)
    rows = transform.project(ops.eye(d, dtype=dtype), signs, order[: count * dim])
    return ops.reshape(rows, (count, dim, d))


def sign_projected_value_and_tangent(
    matrix: Tensor, count: int, dim: int, potential: Potential, number: Any, stream: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean energy of the neurons under random projections by signs, and its gradient.

    Args:
        matrix: tensor of shape `(d, n)` or `(groups, d, n)`.
        count: number of projections.
        dim: number of dimensions after projection.
        potential: energy of a pair of projected neurons.
        number: as in `seed_of`.
        stream: as in `seed_of`.
    """
    transform = SignTransform.of(matrix.shape[-2], count, dim)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    signs, order = transform.draw(dtype, number, stream)
    return value_and_tangent_through(
        matrix,
        lambda unit: transform.project(unit, signs, order[: count * dim]),
        lambda gradient: transform.project_back(gradient, signs, order),
        count,
        potential,
    )
