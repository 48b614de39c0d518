"""Compiled programs, and their place in compiled training steps."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import _devices
from keras_mhe._backend._products import exact_torch_products
from keras_mhe._typing import Tensor


def compiled(
    function: Callable[..., Any],
    *specs: tuple[tuple[int | None, ...], str],
    by_xla: bool = True,
) -> Callable[..., Any]:
    """Compiles a function of tensors with XLA, whether or not the model around it is compiled.

    Without XLA (PyTorch), the function runs as it is, and its products keep all bits.

    Args:
        function: function of as many tensors as there are specs.
        specs: shape and dtype of each tensor.
        by_xla: on TensorFlow, False makes a function without XLA. Sizes may then be None.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Copies of a large function in the graph of a model would take long to optimize.
        program = tf.function(
            function,
            jit_compile=by_xla and _devices.uses_xla(),
            autograph=False,
            experimental_attributes=None if by_xla else {"_noinline": True},
        )
        # One trace: TensorFlow would warn of retracing when many layers use similar functions.
        return program.get_concrete_function(*[tf.TensorSpec(*spec) for spec in specs])
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        return exact_torch_products()(function)
    return function


def not_constant(tensor: Tensor) -> Tensor:
    """The same tensor, as an argument of a function that TensorFlow must not specialize.

    For each call with constants, TensorFlow would make a copy of the function, and optimize it.
    """
    import tensorflow as tf

    if not tf.inside_function():
        return tensor
    return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=tensor.shape)


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
