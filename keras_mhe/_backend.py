"""The one module that names a backend: what ``keras.ops`` cannot say."""

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras


def on_cpu() -> bool:
    """Whether tensors live on a CPU, as far as the backend tells; True where it does not."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return True


def seed_dtype() -> str:
    """The integers that the backend's random numbers take as a seed."""
    return "uint32" if keras.backend.backend() == "jax" else "int32"


def scope_of(model: Any) -> AbstractContextManager[Any]:
    """Where new variables go to the devices of a model's own."""
    strategy = getattr(model, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def normals(shape: tuple[int, ...], dtype: str, seed: keras.random.SeedGenerator) -> Any:
    """Draws from N(0, 1)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # What XLA would choose on a CPU takes up to thirty times as long.
        return tf.random.stateless_normal(shape, seed.next(), dtype=dtype, alg="philox")
    return keras.random.normal(shape, dtype=dtype, seed=seed)


def compiled(
    function: Callable[..., Any], *specs: tuple[tuple[int | None, ...], str]
) -> Callable[..., Any]:
    """Compiles a function of tensors with XLA, whatever compiles the model around it.

    Products inside keep the precision of their operands: hardware that would round float32 to
    fewer bits loses the small distances an energy is made of. (TensorFlow offers that choice
    for the whole process only, as `tf.config.experimental.enable_tensor_float_32_execution`.)
    Without XLA (PyTorch) the function comes back as it is.

    Args:
        function: function of as many tensors as there are specs.
        specs: shape and dtype of each tensor.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # XLA does not reach the GPUs of a Mac.
        xla = platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")
        program = tf.function(function, jit_compile=xla, autograph=False)
        # The one trace: TensorFlow warns of retracing where like functions of many layers meet.
        return program.get_concrete_function(*[tf.TensorSpec(*spec) for spec in specs])
    if keras.backend.backend() == "jax":
        import jax

        def precise(*tensors: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(*tensors)

        return jax.jit(precise)
    return function


def differentiated_on_demand(program: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled program whose derivative is built only where it is asked for.

    TensorFlow builds the backward pass of every program that a tape records, and has the program
    return what that pass needs. The tape of a training step records this one for nothing: its
    gradient comes from the program itself. JAX and PyTorch need no such help.
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
