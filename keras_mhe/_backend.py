"""The only module that names a backend, for what `keras.ops` does not offer."""

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_mhe._typing import Tensor


def on_cpu() -> bool:
    """Whether tensors are on a CPU; True if the backend does not tell."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return True


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


def exact_products() -> AbstractContextManager[Any]:
    """A scope in which matrix products of float32 keep the precision of float32.

    Hardware that rounds the factors to fewer bits (TF32) loses the small distances that dominate
    an energy. JAX has such a scope. TensorFlow has one setting for the whole process,
    `tf.config.experimental.enable_tensor_float_32_execution`, which is left to the user.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_matmul_precision("highest")
    return nullcontext()


def compiled(
    function: Callable[..., Any], *specs: tuple[tuple[int | None, ...], str]
) -> Callable[..., Any]:
    """Compiles a function of tensors with XLA, whether or not the model around it is compiled.

    Without XLA (PyTorch) it returns the function unchanged.

    Args:
        function: function of as many tensors as there are specs.
        specs: shape and dtype of each tensor.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # XLA does not support the GPUs of a Mac.
        xla = platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")
        program = tf.function(function, jit_compile=xla, autograph=False)
        # One trace: TensorFlow would warn of retracing when many layers use similar functions.
        return program.get_concrete_function(*[tf.TensorSpec(*spec) for spec in specs])
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def differentiated_on_demand(program: Callable[..., Any]) -> Callable[..., Any]:
    """Builds the derivative of a compiled program only when it is used.

    TensorFlow builds the backward pass of every program that a tape records, and makes the program
    return what this pass needs. For an energy that is wasted, because the program returns its
    gradient itself. JAX and PyTorch do not have this problem.
    """
    if keras.backend.backend() != "tensorflow":
        return program
    import tensorflow as tf

    @tf.custom_gradient
    def run(*tensors: Any) -> Any:
        def pull_back(*upstream: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                results = program(*tensors)
            return tape.gradient(results, tensors, output_gradients=upstream)

        return program(*map(tf.stop_gradient, tensors)), pull_back

    return run
