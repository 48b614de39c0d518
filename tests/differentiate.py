"""Value and gradient of a function of one tensor, by automatic differentiation of the backend."""

import keras
import numpy as np


def value_and_gradient(function, kernel):
    """Returns the value as a float and the gradient as an array."""
    backend = keras.backend.backend()
    kernel = keras.ops.convert_to_tensor(kernel)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = function(kernel)
        gradient = tape.gradient(value, kernel)
    elif backend == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(kernel)
    else:
        import torch

        kernel = kernel.detach().requires_grad_()
        value = function(kernel)
        [gradient] = torch.autograd.grad(value, kernel)
        value = value.detach()
    assert gradient.dtype == kernel.dtype
    assert gradient.shape == kernel.shape
    if keras.backend.standardize_dtype(gradient.dtype) == "bfloat16":  # NumPy has no bfloat16
        gradient = keras.ops.cast(gradient, "float32")
    to_numpy = keras.ops.convert_to_numpy
    return float(to_numpy(value)), np.asarray(to_numpy(gradient))
