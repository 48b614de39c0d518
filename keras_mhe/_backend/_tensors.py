"""The only module that names a backend, for what `keras.ops` does not offer."""

import contextlib
import functools
import platform
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_mhe._typing import Tensor


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


def at_least(x: Tensor, bound: Any) -> Tensor:
    """The elementwise maximum of a tensor and a bound, in the dtype of the tensor.

    On PyTorch, `ops.maximum` rounds float64 to float32.
    """
    if keras.backend.backend() == "torch":
        return x.clamp(min=bound)
    return ops.maximum(x, bound)


def at_most(x: Tensor, bound: Any) -> Tensor:
    """The elementwise minimum of a tensor and a bound, in the dtype of the tensor."""
    if keras.backend.backend() == "torch":
        return x.clamp(max=bound)
    return ops.minimum(x, bound)


def write_slice(array: Tensor, start: tuple[Any, ...], part: Tensor) -> Tensor:
    """The array with a part of it replaced. PyTorch changes the array itself.

    On PyTorch, `ops.slice_update` copies the array, which a loop over panels does many times.
    """
    if keras.backend.backend() == "torch":
        ends = (int(first) + length for first, length in zip(start, part.shape, strict=True))
        array[tuple(map(slice, map(int, start), ends))] = part
        return array
    return ops.slice_update(array, start, part)


def cholesky(x: Tensor) -> Tensor:
    """The Cholesky factor of a matrix; NaN if the matrix is not positive definite."""
    if keras.backend.backend() == "torch":
        import torch

        # Not `torch.linalg.cholesky`, which raises.
        factor, info = torch.linalg.cholesky_ex(x)
        return torch.where(info[..., None, None] == 0, factor, torch.nan)
    return ops.linalg.cholesky(x)


def is_recording() -> bool:
    """Whether PyTorch records operations now, to differentiate them later."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()


def _uses_xla() -> bool:
    import tensorflow as tf

    # XLA does not support the GPUs of a Mac.
    return platform.system() != "Darwin" or not tf.config.list_physical_devices("GPU")


@functools.cache
def _xla_product() -> Callable[[Tensor, Tensor], Tensor] | None:
    """XLA's own product, whose precision can be set; `None` if TensorFlow does not offer it."""
    import tensorflow as tf

    try:
        from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dot_v2
        from tensorflow.compiler.xla.xla_data_pb2 import DotDimensionNumbers, PrecisionConfig
    except ImportError:
        return None
    precision = PrecisionConfig(operand_precision=[PrecisionConfig.HIGHEST] * 2)

    # The operation has no registered gradient.
    @tf.custom_gradient
    def product(a: Tensor, b: Tensor) -> Any:
        rank = len(a.shape)
        dimensions = DotDimensionNumbers(
            lhs_contracting_dimensions=[rank - 1],
            rhs_contracting_dimensions=[rank - 2],
            lhs_batch_dimensions=range(rank - 2),
            rhs_batch_dimensions=range(rank - 2),
        )
        result = xla_dot_v2(
            a, b, dimensions.SerializeToString(), precision.SerializeToString(), a.dtype
        )

        def pull_back(upstream: Tensor) -> tuple[Tensor, Tensor]:
            left, right = (ops.swapaxes(x, -1, -2) for x in (a, b))
            return product(upstream, right), product(left, upstream)

        return result, pull_back

    return product


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product in full precision. Leading axes are equal, or one factor is a matrix.

    By default, GPUs round the factors of float32 to fewer bits (TF32), and lose the small distances
    that dominate an energy. In a program of `compiled`, this product keeps all bits. Its
    derivatives do so too, except on PyTorch.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, precision="highest")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # No CPU rounds factors, and XLA's own product cannot be converted to TensorFlow Lite.
        exact = on_cpu() or not tf.inside_function() or not _uses_xla()
        product = None if exact else _xla_product()
        if product is not None:
            if len(a.shape) < len(b.shape):
                a = ops.broadcast_to(a, (*b.shape[:-2], *a.shape[-2:]))
            elif len(b.shape) < len(a.shape):
                b = ops.broadcast_to(b, (*a.shape[:-2], *b.shape[-2:]))
            return product(a, b)
    if keras.backend.backend() == "torch":
        import torch

        # `ops.matmul` would round float64 to float32.
        return torch.matmul(a, b)
    return ops.matmul(a, b)


_torch_settings = threading.RLock()


@contextlib.contextmanager
def _exact_torch_products() -> Iterator[None]:
    """A scope in which PyTorch does not round the factors of products.

    Since PyTorch 2.9, there are two kinds of settings for the process, and products on a GPU raise
    an error if they differ.
    """
    import torch

    def old_setting() -> str:
        try:
            return torch.get_float32_matmul_precision()
        except RuntimeError:  # the process uses the new kind, so the old one has its default
            return "highest"

    backends = []
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    if old_setting() == "highest" and all(x.fp32_precision in ("none", "ieee") for x in backends):
        yield
        return
    # Another thread must not save or restore settings meanwhile.
    with _torch_settings:
        old, new = old_setting(), [backend.fp32_precision for backend in backends]
        try:
            if old != "highest":
                torch.set_float32_matmul_precision("highest")
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            if old != "highest":
                torch.set_float32_matmul_precision(old)
            for backend, precision in zip(backends, new, strict=True):
                # "none" inherits the precision of a more general setting.
                backend.fp32_precision = "none"
                if backend.fp32_precision != precision:
                    backend.fp32_precision = precision


def compiled(
    function: Callable[..., Any], *specs: tuple[tuple[int | None, ...], str]
) -> Callable[..., Any]:
    """Compiles a function of tensors with XLA, whether or not the model around it is compiled.

    Without XLA (PyTorch), the function runs as it is, and its products keep all bits.

    Args:
        function: function of as many tensors as there are specs.
        specs: shape and dtype of each tensor.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        program = tf.function(function, jit_compile=_uses_xla(), autograph=False)
        # One trace: TensorFlow would warn of retracing when many layers use similar functions.
        return program.get_concrete_function(*[tf.TensorSpec(*spec) for spec in specs])
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        return _exact_torch_products()(function)
    return function


def outside_torch_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `torch.compile` run a function as it is, between two graphs.

    Traced energies fail: PyTorch's guards on their constants do not hold for their own frame.
    """
    if keras.backend.backend() != "torch":
        return function
    import torch

    disabled: Callable[..., Any] = torch.compiler.disable(function)
    return disabled


def update_if(
    condition: Tensor, update: Callable[[], dict[str, Tensor]], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The result of `update()` if the condition is true, and otherwise the state as it is."""
    if keras.backend.backend() == "torch":
        # `ops.cond` would wait for a GPU to compute the condition.
        return {name: ops.where(condition, new, state[name]) for name, new in update().items()}
    return ops.cond(condition, update, lambda: state)


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
