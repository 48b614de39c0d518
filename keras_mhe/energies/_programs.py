"""The cache of compiled programs, and programs that bring their own gradient."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import (
    compiled,
    differentiated_on_demand,
    has_compiler,
    not_constant,
    not_differentiable,
    with_own_gradient,
)
from keras_mhe._typing import Tensor
from keras_mhe.energies._bound import bound_shares, bounded_gradient

_Specs = tuple[tuple[tuple[int | None, ...], str], ...]
_Cache = Callable[[Callable[..., Any], _Specs, tuple[Any, ...], bool], Callable[..., Any]]
# Stands for a number that is an argument of a program.
_NUMBER = object()


def _without_numbers(option: Any, numbers: list[Any]) -> Any:
    """The option with `_NUMBER` in place of each float or tensor, which the list receives."""
    if isinstance(option, float) or ops.is_tensor(option):
        numbers.append(option)
        return _NUMBER
    if isinstance(option, tuple):
        return tuple(_without_numbers(part, numbers) for part in option)
    if dataclasses.is_dataclass(option):
        return _copy_with(option, lambda part: _without_numbers(part, numbers))
    return option


def _with_numbers(option: Any, numbers: Iterator[Tensor]) -> Any:
    """The option with the next of the numbers in place of each `_NUMBER`."""
    if option is _NUMBER:
        return next(numbers)
    if isinstance(option, tuple):
        return tuple(_with_numbers(part, numbers) for part in option)
    if dataclasses.is_dataclass(option):
        return _copy_with(option, lambda part: _with_numbers(part, numbers))
    return option


def _copy_with(option: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a frozen dataclass with changed fields, which need not pass its checks."""
    result = copy.copy(option)
    for field in dataclasses.fields(option):
        object.__setattr__(result, field.name, change(getattr(option, field.name)))
    return result


def _empty_cache() -> _Cache:
    @functools.lru_cache(maxsize=1024)
    def lookup(
        function: Callable[..., Any], specs: _Specs, options: tuple[Any, ...], by_parts: bool
    ) -> Callable[..., Any]:
        def program(*arguments: Tensor) -> Any:
            *tensors, numbers = arguments
            values = ops.unstack(numbers) if numbers.shape[0] else []
            return function(*tensors, *_with_numbers(options, iter(values)))

        return compiled(program, *specs, by_xla=not by_parts)

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
    function: Callable[..., Any],
    *tensors: Tensor,
    options: tuple[Any, ...] = (),
    by_parts: bool = False,
) -> Callable[..., Any]:
    """The compiled form of `function(*tensors, *options)`, from the cache if it is there.

    Numbers of type `float` in the options are arguments of the program, which serves all values.
    TensorFlow never frees the memory of a program, so a sweep must not compile one for each value.

    Args:
        function: function defined at module level. It is a part of the cache key.
        tensors: tensors of the shapes and dtypes to compile for.
        options: further arguments: tuples and frozen dataclasses of hashable values. The function
            receives scalar tensors in place of floats, which may be tensors already.
        by_parts: whether XLA compiles only the programs that the function itself uses. The program
            then serves first tensors with any number of rows.

    Returns:
        A function of tensors of these shapes and dtypes.
    """
    if not has_compiler():
        # To pass numbers as arguments would take a fifth of the time of a small energy.
        direct = compiled(function)
        return lambda *tensors: direct(*tensors, *options)
    numbers: list[Any] = []
    fixed = _without_numbers(options, numbers)
    dtypes = [str(keras.backend.standardize_dtype(tensor.dtype)) for tensor in tensors]
    shapes: list[tuple[int | None, ...]] = [tuple(tensor.shape) for tensor in tensors]
    if by_parts:
        *batch, _, n = shapes[0]
        shapes[0] = (*batch, None, n)
    wide = "float64" if "float64" in dtypes else "float32"
    specs = zip([*shapes, (len(numbers),)], [*dtypes, wide], strict=True)
    program = _lookup(function, tuple(specs), fixed, by_parts)
    # Within a function that runs by parts, the numbers are tensors.
    vector = ops.stack(numbers) if any(map(ops.is_tensor, numbers)) else numbers

    def run(*tensors: Tensor) -> Any:
        first, *others = (*tensors, ops.convert_to_tensor(vector, wide))
        return program(first, *(map(not_constant, others) if by_parts else others))

    return run


def _no_second_derivative(matrix: Tensor) -> Exception:
    return NotImplementedError(
        "Second derivatives are not available for this energy. Only the energy of all pairs of "
        "neurons has them, and only if it is neither projected by a matrix nor computed by panels. "
        f"Received: {matrix.shape[-1]} neurons"
    )


def _differentiated_once(program: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a program whose gradient cannot be differentiated, so no tape records its loops."""
    final = not_differentiable(_no_second_derivative)

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
    by_parts: bool,
) -> Tensor:
    program = program_for(function, matrix, *others, options=options, by_parts=by_parts)
    wrap = differentiated_on_demand if twice_differentiable else _differentiated_once
    return with_own_gradient(wrap(program))(matrix, *others)


def _exact(matrix: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *others, function, options = arguments
    value, tangent, reciprocal = function(matrix, *others, *options)
    return value, tangent if reciprocal is None else tangent * reciprocal


def _weighted(matrix: Tensor, factor: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *others, function, options, force, offset = arguments
    value, tangent, reciprocal = function(matrix, *others, *options)
    loss = factor * (value - offset)
    if reciprocal is None:
        gradient = factor * tangent
        return loss, gradient if force is None else bounded_gradient(matrix, gradient, force)
    scale = factor * reciprocal
    if force is not None:
        scale = scale * bound_shares(tangent, factor, reciprocal, force)
    return loss, tangent * scale


def _weighted_unless_zero(matrix: Tensor, factor: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    def nothing() -> tuple[Tensor, Tensor]:
        return ops.zeros_like(factor), ops.zeros_like(matrix)

    return ops.cond(factor != 0, lambda: _weighted(matrix, factor, *arguments), nothing)


@dataclass(frozen=True)
class EnergyProgram:
    """A function that computes an energy and its gradient, together with its arguments.

    Attributes:
        function: function of a matrix of neurons, the other tensors and the options. It returns a
            scalar, a tensor shaped like the matrix, and the reciprocal norms of the neurons. The
            gradient is the product of the last two. None in place of the norms means that the
            tensor is the gradient itself. The function is defined at module level, and compiled as
            in `program_for`.
        others: further tensors, which get no gradient.
        options: further arguments, as in `program_for`.
        twice_differentiable: whether the gradient can be differentiated again.
        by_parts: as in `program_for`.
    """

    function: Callable[..., Any]
    options: tuple[Any, ...] = ()
    others: tuple[Tensor, ...] = ()
    twice_differentiable: bool = False
    by_parts: bool = False

    def energy(self, matrix: Tensor) -> Tensor:
        """The energy of a matrix, as a differentiable scalar tensor."""
        return _value_with_gradient(
            _exact,
            matrix,
            *self.others,
            options=(self.function, self.options),
            twice_differentiable=self.twice_differentiable,
            by_parts=self.by_parts,
        )

    def loss(
        self,
        matrix: Tensor,
        factor: Any,
        force: float | None,
        offset: float = 0.0,
        lazy: bool = False,
    ) -> Tensor:
        """`factor * (energy - offset)`, as a differentiable scalar tensor.

        Args:
            matrix: a matrix of neurons.
            factor: number or scalar tensor. It gets no gradient.
            force: if not None, the gradient of this loss is bounded, as in `bound_shares`. An
                upstream gradient, such as the scale of a loss in float16, is multiplied later.
            offset: energy at which the loss is zero.
            lazy: whether to compute nothing while the factor is zero.
        """
        return _value_with_gradient(
            _weighted_unless_zero if lazy else _weighted,
            matrix,
            ops.cast(factor, matrix.dtype),
            *self.others,
            options=(self.function, self.options, force, offset),
            twice_differentiable=self.twice_differentiable,
            by_parts=self.by_parts,
        )
