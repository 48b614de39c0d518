"""Tensors: random numbers, and operations that `keras.ops` rounds, copies or refuses."""

from typing import Any

import keras
from keras import ops

from keras_mhe._typing import Tensor


def seed_dtype() -> str:
    """The dtype of the seeds of the backend's random numbers."""
    return "uint32" if keras.backend.backend() == "jax" else "int32"


def normals(shape: tuple[int, ...], dtype: str, seed: keras.random.SeedGenerator) -> Tensor:
    """Draws random numbers from N(0, 1)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The algorithm that XLA chooses on a CPU is up to thirty times slower.
        return tf.random.stateless_normal(shape, seed.next(), dtype=dtype, alg="philox")
    return keras.random.normal(shape, dtype=dtype, seed=seed)


def at_least(x: Tensor, bound: Any) -> Tensor:
    """The elementwise maximum of a tensor and a bound, in the dtype of the tensor.

    On PyTorch, `ops.maximum` rounds float64 to float32.
    """
    if keras.backend.backend() == "torch":
        return x.clamp(min=bound)
    return ops.maximum(x, bound)


def at_most(x: Tensor, bound: Any) -> Tensor:
    """The elementwise minimum of a tensor and a bound, in the dtype of the tensor."""
    if keras.backend.backend() == "torch":
        return x.clamp(max=bound)
    return ops.minimum(x, bound)


def write_slice(array: Tensor, start: tuple[Any, ...], part: Tensor) -> Tensor:
    """The array with a part of it replaced. PyTorch changes the array itself.

    On PyTorch, `ops.slice_update` copies the array, which a loop over panels does many times.
    """
    if keras.backend.backend() == "torch":
        ends = (int(first) + length for first, length in zip(start, part.shape, strict=True))
        array[tuple(map(slice, map(int, start), ends))] = part
        return array
    return ops.slice_update(array, start, part)


def cholesky(x: Tensor) -> Tensor:
    """The Cholesky factor of a matrix; NaN if the matrix is not positive definite."""
    if keras.backend.backend() == "torch":
        import torch

        # Not `torch.linalg.cholesky`, which raises.
        factor, info = torch.linalg.cholesky_ex(x)
        return torch.where(info[..., None, None] == 0, factor, torch.nan)
    return ops.linalg.cholesky(x)
