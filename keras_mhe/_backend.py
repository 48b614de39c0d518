"""The one module that names a backend: what ``keras.ops`` cannot say."""

import platform
from collections.abc import Callable
from typing import Any

import keras


def compiled(
    function: Callable[[Any], Any], shape: tuple[int, ...], dtype: str
) -> Callable[[Any], Any]:
    """Compiles a function of one tensor with XLA, whatever compiles the model around it.

    Products inside keep the precision of their operands: hardware that would round float32 to
    fewer bits loses the small distances an energy is made of. (TensorFlow offers that choice
    for the whole process only, as `tf.config.experimental.enable_tensor_float_32_execution`.)
    Without XLA (PyTorch) the function comes back as it is.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # XLA does not reach the GPUs of a Mac.
        xla = platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")
        program = tf.function(function, jit_compile=xla, autograph=False)
        # The one trace: TensorFlow warns of retracing where like functions of many layers meet.
        return program.get_concrete_function(tf.TensorSpec(shape, dtype))
    if keras.backend.backend() == "jax":
        import jax

        def precise(tensor: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(tensor)

        return jax.jit(precise)
    return function
