"""The cache of compiled programs, and programs that bring their own gradient."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled, differentiated_on_demand, is_recording
from keras_mhe._typing import Tensor
from keras_mhe.energies._bound import bounded_gradient

_Specs = tuple[tuple[tuple[int | None, ...], str], ...]
_Cache = Callable[[Callable[..., Any], _Specs, tuple[Any, ...]], Callable[..., Any]]


def _empty_cache() -> _Cache:
    @functools.lru_cache(maxsize=1024)
    def lookup(
        function: Callable[..., Any], specs: _Specs, options: tuple[Any, ...]
    ) -> Callable[..., Any]:
        def program(*tensors: Tensor) -> Any:
            return function(*tensors, *options)

        return compiled(program, *specs)

    return lookup


_lookup = _empty_cache()


@contextlib.contextmanager
def fresh_programs() -> Iterator[None]:
    """Uses an empty cache inside the `with` block, and the previous cache after it.

    This is for tests that change something which is compiled into programs, such as the size of
    panels. Such a test must not use programs compiled earlier, nor leave its own to later tests.
    """
    global _lookup
    previous, _lookup = _lookup, _empty_cache()
    try:
        yield
    finally:
        _lookup = previous


def program_for(
    function: Callable[..., Any], *tensors: Tensor, options: tuple[Any, ...] = ()
) -> Callable[..., Any]:
    """The compiled form of `function(*tensors, *options)`, from the cache if it is there.

    Args:
        function: function defined at module level. It is a part of the cache key.
        tensors: tensors of the shapes and dtypes to compile for.
        options: further arguments, fixed in the program. They must be hashable, because they are
            a part of the cache key.

    Returns:
        A function of tensors of these shapes and dtypes.
    """
    specs = tuple(
        (tuple(tensor.shape), str(keras.backend.standardize_dtype(tensor.dtype)))
        for tensor in tensors
    )
    return _lookup(function, specs, options)


def _differentiated_once(program: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a program whose gradient cannot be differentiated, so no tape records its loops."""

    @ops.custom_gradient
    def final(gradient: Tensor, matrix: Tensor) -> Any:
        def refuse(*args: Any, upstream: Any = None) -> Any:
            raise NotImplementedError(
                "Second derivatives are not available for this energy. Only the energy of all "
                "pairs of neurons has them, and only if it is neither projected by a matrix nor "
                f"computed by panels. Received: {matrix.shape[-1]} neurons"
            )

        return gradient, refuse

    def run(matrix: Tensor, *others: Tensor) -> Any:
        value, gradient = program(ops.stop_gradient(matrix), *others)
        return value, final(gradient, matrix)

    return run


def _value_with_gradient(
    function: Callable[..., Any],
    matrix: Tensor,
    *others: Tensor,
    options: tuple[Any, ...],
    twice_differentiable: bool,
) -> Tensor:
    program = program_for(function, matrix, *others, options=options)
    wrap = differentiated_on_demand if twice_differentiable else _differentiated_once
    run = wrap(program)

    # On JAX, a custom gradient can use only tensors that are its arguments.
    @ops.custom_gradient
    def value(matrix: Tensor, *others: Tensor) -> Any:
        result, gradient = run(matrix, *others)

        def pull_back(*args: Any, upstream: Any = None) -> Any:
            # PyTorch passes the inputs first and names the upstream gradient.
            if upstream is None:
                change = gradient * args[0]
            else:
                # PyTorch did not record the program. A second derivative needs a recorded one.
                change = (run(*args)[1] if is_recording() else gradient) * upstream
            return (change, *[None] * len(others)) if others else change

        return result, pull_back

    return value(matrix, *others)


def _weighted(matrix: Tensor, factor: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *others, function, options, force, offset = arguments
    value, gradient = function(matrix, *others, *options)
    gradient = factor * gradient
    if force is not None:
        gradient = bounded_gradient(matrix, gradient, force)
    return factor * (value - offset), gradient


@dataclass(frozen=True)
class EnergyProgram:
    """A function that computes an energy and its gradient, together with its arguments.

    Attributes:
        function: function of a matrix of neurons, the other tensors and the options. It returns a
            scalar and its gradient, shaped like the matrix. It is defined at module level, and
            compiled as in `program_for`.
        others: further tensors, which get no gradient.
        options: further arguments, as in `program_for`.
        twice_differentiable: whether the gradient can be differentiated again.
    """

    function: Callable[..., Any]
    options: tuple[Any, ...] = ()
    others: tuple[Tensor, ...] = ()
    twice_differentiable: bool = False

    def energy(self, matrix: Tensor) -> Tensor:
        """The energy of a matrix, as a differentiable scalar tensor."""
        return _value_with_gradient(
            self.function,
            matrix,
            *self.others,
            options=self.options,
            twice_differentiable=self.twice_differentiable,
        )

    def loss(self, matrix: Tensor, factor: Any, force: float | None, offset: float = 0.0) -> Tensor:
        """`factor * (energy - offset)`, as a differentiable scalar tensor.

        Args:
            matrix: a matrix of neurons.
            factor: number or scalar tensor. It gets no gradient.
            force: if not None, the gradient of this loss is bounded, as in `bounded_gradient`. An
                upstream gradient, such as the scale of a loss in float16, is multiplied later.
            offset: energy at which the loss is zero.
        """
        return _value_with_gradient(
            _weighted,
            matrix,
            ops.cast(factor, matrix.dtype),
            *self.others,
            options=(self.function, self.options, force, offset),
            twice_differentiable=self.twice_differentiable,
        )
