"""Seeds made of weights: new when one bit moves, and fit for every backend's random numbers."""

import keras
import numpy as np
import pytest
from probes import normals

from keras_mhe import seeds


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_one_bit_of_one_weight_draws_anew_in_every_dtype(dtype):
    drawn = set()
    for i in range(64):
        kernel = np.ones(64, "float32")
        kernel[i] = 1 + 2**-7
        tensor = keras.ops.cast(keras.ops.cast(kernel, dtype), "float32")
        drawn.add(
            int(keras.ops.convert_to_numpy(seeds.seed_of(seeds.fingerprint(tensor)).next())[0])
        )
    assert len(drawn) == 64


def test_seeds_of_close_kernels_are_spread_evenly():
    kernel = normals(6, 5)
    drawn = [
        int(
            keras.ops.convert_to_numpy(
                seeds.seed_of(seeds.fingerprint(kernel * np.float32(s))).next()
            )[0]
        )
        for s in 1 + np.arange(200) / 2**22
    ]
    counts, _ = np.histogram(drawn, bins=8, range=(0, 2**31))
    assert counts.sum() == 200
    assert counts.max() < 50  # 25 each on average, with a deviation of 5


def test_keras_random_takes_them():
    drawn = [
        keras.ops.convert_to_numpy(
            keras.random.normal((3, 2), seed=seeds.seed_of(seeds.fingerprint(kernel)))
        )
        for kernel in (normals(2, 2), normals(2, 2), normals(2, 2, seed=1))
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.any(drawn[0] == drawn[2])
