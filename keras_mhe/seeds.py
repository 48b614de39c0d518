"""Random draws without state: the seed is made of the weights themselves."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import seed_dtype


class _Drawn(keras.random.SeedGenerator):
    """A seed in the form that `keras.random` asks for, without a variable behind it."""

    def __init__(self, seed: Any) -> None:
        self.seed = seed

    def next(self, ordered: bool = True) -> Any:
        return self.seed


def fingerprint(tensor: Any) -> Any:
    """An integer of at least zero made of the bits of a tensor: another as soon as one changes."""
    bits = ops.reshape(ops.view(tensor, "int32"), (-1,))
    # Narrow dtypes leave the low bits zero, and the product would hand that on.
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, 16))
    # Odd multipliers are invertible modulo 2^32: no single change is lost.
    odd = ops.arange(bits.shape[0], dtype="int32") * np.int32(2) + np.int32(1)
    mixed = ops.sum(bits * odd * np.int32(-1640531535))
    # Without its sign, which the dtypes of seeds disagree about.
    return ops.bitwise_and(mixed, ops.convert_to_tensor(2**31 - 1, "int32"))


def seed_of(number: Any, stream: int = 0) -> keras.random.SeedGenerator:
    """A seed made of an integer of at least zero; streams of draws differ from each other.

    A regularizer holds no state that a compiled step could advance. The weights are such a state:
    they move every step, are equal on all replicas and come back with a checkpoint. Their
    `fingerprint` makes a seed that does so, too.
    """
    words = [ops.convert_to_tensor(word, "int32") for word in (number, stream)]
    return _Drawn(ops.cast(ops.stack(words), seed_dtype()))
