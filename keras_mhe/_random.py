"""Random draws without state: the seed is computed from the weights themselves."""

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import seed_dtype
from keras_mhe._typing import Tensor


class _FixedSeed(keras.random.SeedGenerator):
    """A seed in the form that `keras.random` accepts, without the variable of a SeedGenerator."""

    def __init__(self, seed: Tensor) -> None:
        self.seed = seed

    def next(self, ordered: bool = True) -> Tensor:
        return self.seed


def fingerprint(tensor: Tensor) -> Tensor:
    """Hashes the bits of a tensor to an int32 >= 0. A change of one entry changes the hash."""
    bits = ops.reshape(ops.view(tensor, "int32"), (-1,))
    # Narrow dtypes leave the low bits zero, and the multiplication would keep them zero.
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, 16))
    # Odd multipliers are invertible modulo 2^32, so a change of one entry always changes the sum.
    odd = ops.arange(bits.shape[0], dtype="int32") * np.int32(2) + np.int32(1)
    mixed = ops.sum(bits * odd * np.int32(-1640531535))
    # Seeds are int32 on some backends and uint32 on others: without its sign it fits both.
    return ops.bitwise_and(mixed, ops.convert_to_tensor(2**31 - 1, "int32"))


def seed_of(number: Tensor, stream: int = 0) -> keras.random.SeedGenerator:
    """Makes a seed from an integer of at least zero; each stream gives different draws.

    A bare regularizer has no variable that a compiled training step could update. The weights do
    change at every step, are equal on all replicas and return with a checkpoint. A seed made from
    their `fingerprint` has the same properties.
    """
    words = [ops.convert_to_tensor(word, "int32") for word in (number, stream)]
    return _FixedSeed(ops.cast(ops.stack(words), seed_dtype()))
