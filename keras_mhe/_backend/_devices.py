"""Where and how the backend runs."""

import platform

import keras
from keras import ops


def on_cpu() -> bool:
    """Whether new tensors are on a CPU; True if the backend does not tell."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    if keras.backend.backend() == "torch":
        return ops.zeros(()).device.type == "cpu"
    return True


def has_compiler() -> bool:
    """Whether the backend compiles programs with XLA."""
    return bool(keras.backend.backend() in ("tensorflow", "jax"))


def uses_xla() -> bool:
    """Whether TensorFlow compiles programs with XLA."""
    import tensorflow as tf

    # XLA does not support the GPUs of a Mac.
    return platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")


def compiles_apart() -> bool:
    """Whether a program is compiled apart from the model that contains it, on a CPU.

    This takes half a second on TensorFlow, for each shape. JAX compiles a program together with the
    training step, in a tenth of the time. Products outside of programs are exact only on a CPU.
    """
    return keras.backend.backend() == "tensorflow" and on_cpu()
