"""Functions that bring their own gradient."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mhe._typing import Tensor


def _is_recording() -> bool:
    """Whether PyTorch records operations now, to differentiate them later."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.is_grad_enabled()


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


def _with_derivative(run: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """`with_own_gradient` on JAX, where it also works in forward mode."""
    import jax

    @jax.custom_jvp
    def value(matrix: Tensor, *others: Tensor) -> Tensor:
        return run(matrix, *others)[0]

    @value.defjvp
    def derivative(primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
        result, gradient = run(*primals)
        return result, ops.sum(gradient * tangents[0])

    function: Callable[..., Tensor] = value
    return function


def with_own_gradient(run: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """The scalar that `run(matrix, *others)` returns, with the gradient that it also returns.

    The gradient with respect to the other tensors is zero.
    """
    if keras.backend.backend() == "jax":
        return _with_derivative(run)

    @ops.custom_gradient
    def value(matrix: Tensor, *others: Tensor) -> Any:
        result, gradient = run(matrix, *others)

        def pull_back(*args: Any, upstream: Any = None) -> Any:
            # PyTorch passes the inputs first and names the upstream gradient.
            if upstream is None:
                change = gradient * args[0]
            else:
                # PyTorch did not record the program. A second derivative needs a recorded one.
                change = (run(*args)[1] if _is_recording() else gradient) * upstream
            return (change, *[None] * len(others)) if others else change

        return result, pull_back

    function: Callable[..., Tensor] = value
    return function


def not_differentiable(error: Callable[[Tensor], Exception]) -> Callable[[Tensor, Tensor], Tensor]:
    """A function that returns its first argument, and raises an error if it is differentiated.

    Args:
        error: function of the second argument.
    """
    if keras.backend.backend() == "jax":
        import jax

        final = jax.custom_jvp(lambda result, matrix: result)

        @final.defjvp
        def refuse(primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
            raise error(primals[1])

        return final

    @ops.custom_gradient
    def identity(result: Tensor, matrix: Tensor) -> Any:
        def pull_back(*args: Any, upstream: Any = None) -> Any:
            raise error(matrix)

        return result, pull_back

    function: Callable[[Tensor, Tensor], Tensor] = identity
    return function
