"""Seeds from the bits of weights: every changed bit gives a new seed, which Keras accepts."""

import keras
import numpy as np
import pytest
from helpers import normals

from keras_mhe import _random


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_one_changed_bit_changes_the_seed_in_every_dtype(dtype):
    seeds = set()
    for i in range(64):
        kernel = np.ones(64, "float32")
        kernel[i] = 1 + 2**-7
        tensor = keras.ops.cast(keras.ops.cast(kernel, dtype), "float32")
        seeds.add(
            int(keras.ops.convert_to_numpy(_random.seed_of(_random.fingerprint(tensor)).next())[0])
        )
    assert len(seeds) == 64


def test_seeds_of_similar_kernels_are_uniformly_distributed():
    kernel = normals(6, 5)
    seeds = [
        int(
            keras.ops.convert_to_numpy(
                _random.seed_of(_random.fingerprint(kernel * np.float32(s))).next()
            )[0]
        )
        for s in 1 + np.arange(200) / 2**22
    ]
    counts, _ = np.histogram(seeds, bins=8, range=(0, 2**31))
    assert counts.sum() == 200
    assert counts.max() < 50  # 25 on average, with a standard deviation of 5


def test_keras_random_accepts_the_seeds():
    draws = [
        keras.ops.convert_to_numpy(
            keras.random.normal((3, 2), seed=_random.seed_of(_random.fingerprint(kernel)))
        )
        for kernel in (normals(2, 2), normals(2, 2), normals(2, 2, seed=1))
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.any(draws[0] == draws[2])
