"""The cache of compiled programs, and programs that bring their own gradient."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled, differentiated_on_demand, is_recording
from keras_mhe._typing import Tensor

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


def value_with_gradient(
    function: Callable[..., Any],
    matrix: Tensor,
    *others: Tensor,
    options: tuple[Any, ...] = (),
    twice_differentiable: bool = False,
) -> Tensor:
    """The value of a function that also computes its own gradient, as a differentiable tensor.

    Args:
        function: function of the matrix, the other tensors and the options. It returns a scalar
            and the gradient, shaped like the matrix. It is compiled as in `program_for`.
        matrix: the first argument of the function.
        others: further tensors, which get no gradient. (On JAX, a custom gradient can use only
            tensors that are its arguments.)
        options: as in `program_for`.
        twice_differentiable: whether the gradient can be differentiated again.
    """
    program = program_for(function, matrix, *others, options=options)
    wrap = differentiated_on_demand if twice_differentiable else _differentiated_once
    run = wrap(program)

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
