"""Limits what Keras creates while it builds a model from a file."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np


class OverBudgetError(Exception):
    """Raised before Keras creates more than the limit. The text says how much it would create."""


class _Counter:
    """Counts what is created, and raises if it is more than the limit."""

    def __init__(self, limit: int, unit: str) -> None:
        self.count, self._limit, self._unit = 0, limit, unit

    def check(self) -> None:
        if self.count > self._limit:
            raise OverBudgetError(f"at least {self.count:,} {self._unit}")

    def add(self, count: int) -> None:
        self.count += count
        self.check()


def _size(shape: Any) -> int:
    """The numbers in an array of this shape; 0 for shapes that Keras will refuse.

    An empty axis counts as one of length 1: a kernel without inputs takes no memory, but a report
    has an angle for each of its neurons.
    """
    try:
        lengths = [shape] if isinstance(shape, int) else shape
        return math.prod(max(1, int(length)) for length in lengths)
    except (TypeError, ValueError):
        return 0


@contextlib.contextmanager
def _before_creation(cls: Any, check: Callable[..., None]) -> Iterator[None]:
    """Calls `check` with the arguments of each object of a class before it is created."""
    create = cls.__init__

    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        check(*args, **kwargs)
        create(self, *args, **kwargs)

    cls.__init__ = checked
    try:
        yield
    finally:
        cls.__init__ = create


@contextlib.contextmanager
def limited_creation(numbers: int, tensors: int) -> Iterator[None]:
    """Limits the variables and the symbolic tensors that Keras creates in the block.

    A layer allocates its variables when it is built, even if no file has values for them. This
    stops it before the first variable that exceeds the limit. A symbolic tensor has no numbers, but
    takes memory too, and one operation can create millions.

    Args:
        numbers: how many numbers all variables may have.
        tensors: how many symbolic tensors Keras may create.

    Raises:
        OverBudgetError: if Keras would create more, even if Keras catches the error.
        RuntimeError: if Keras does not create variables by `keras.Variable`.
    """
    variables, symbols = _Counter(numbers, "weights"), _Counter(tensors, "tensors")

    def count_variable(initializer: Any = None, shape: Any = None, *_: Any, **__: Any) -> None:
        variables.add(_size(np.shape(initializer) if shape is None else shape))

    def count_tensor(*_: Any, **__: Any) -> None:
        symbols.add(1)

    with (
        _before_creation(keras.Variable, count_variable),
        _before_creation(keras.KerasTensor, count_tensor),
    ):
        keras.layers.Dense(1, use_bias=False).build((None, 1))
        if variables.count != 1:
            raise RuntimeError(
                "keras_mhe relies on `keras.Variable` for all variables of layers, which Keras "
                f"{keras.__version__} does not use."
            )
        variables.count = 0
        try:
            yield
        finally:
            variables.check()
            symbols.check()
