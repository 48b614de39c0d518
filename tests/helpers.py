"""Random kernels, and energies and gradients as numbers and NumPy arrays."""

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient

from keras_mhe import hyperspherical_energy

POWERS = [0, 1, 2, 2.5]
DISTANCES = ["euclidean", "angular"]
SPACES = [False, True]


def on_every_potential(test):
    test = pytest.mark.parametrize("s", POWERS)(test)
    test = pytest.mark.parametrize("distance", DISTANCES)(test)
    return pytest.mark.parametrize("half_space", SPACES)(test)


# Every power, distance and space. `test_potential.py` tests all 16 combinations for one pair.
on_some_potentials = pytest.mark.parametrize(
    ("s", "distance", "half_space"),
    [
        (0, "euclidean", True),
        (1, "angular", False),
        (2, "euclidean", False),
        (2.5, "angular", True),
    ],
)


# One of both ways is quick: PyTorch compiles a training step in 20 seconds.
_QUICK = keras.backend.backend() != "torch"
on_compiled_and_other_steps = pytest.mark.parametrize(
    "jit_compile", [_QUICK, pytest.param(not _QUICK, marks=pytest.mark.slow)]
)


def normals(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def energy_value(kernel, *args, **options):
    return float(keras.ops.convert_to_numpy(hyperspherical_energy(kernel, *args, **options)))


def energy_and_gradient(kernel, *args, **options):
    return value_and_gradient(lambda k: hyperspherical_energy(k, *args, **options), kernel)


def squared_gradient(kernel, function=hyperspherical_energy, **options):
    """Returns the squared norm of a function's gradient, as a tensor to differentiate again."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = function(kernel, **options)
        gradient = tape.gradient(value, kernel)
    elif keras.backend.backend() == "jax":
        import jax

        gradient = jax.grad(lambda k: function(k, **options))(kernel)
    else:
        import torch

        value = function(kernel, **options)
        [gradient] = torch.autograd.grad(value, kernel, create_graph=True)
    return keras.ops.sum(gradient**2)


def second_order_gradient(kernel, **options):
    """Returns the squared norm of the energy's gradient, and the gradient of that squared norm."""
    return value_and_gradient(lambda k: squared_gradient(k, **options), kernel)
