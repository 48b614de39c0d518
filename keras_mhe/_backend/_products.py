"""Matrix products in full precision."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import _devices
from keras_mhe._typing import Tensor


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
        exact = _devices.on_cpu() or not tf.inside_function() or not _devices.uses_xla()
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
def exact_torch_products() -> Iterator[None]:
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
