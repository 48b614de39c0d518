"""Functions of all pairs of neurons, column by column, in memory proportional to their number."""

from collections.abc import Callable
from typing import Any

from keras import ops

# So many cosines are held at a time: narrower strips are slower, wider ones take memory.
_STRIP = 2**21


def by_strips(function: Callable[..., tuple[Any, ...]], *arrays: Any) -> tuple[Any, ...]:
    """Applies a function of columns to all columns of the arrays, a strip of them at a time.

    Args:
        function: takes strips of the arrays and the indices of their columns; returns tensors
            with as many columns.
        arrays: tensors of shape `(..., rows, n)`.
    """
    n = arrays[0].shape[-1]
    if n * n <= _STRIP:
        return function(*arrays, ops.arange(n, dtype="int32"))
    width = max(16, _STRIP // n)
    count = -(-n // width)
    padding = [(0, 0)] * (len(arrays[0].shape) - 1) + [(0, count * width - n)]
    arrays = tuple(ops.pad(array, padding) for array in arrays)

    def start(j: Any, tensor: Any) -> tuple[Any, ...]:
        return (*[j * 0] * (len(tensor.shape) - 1), j * width)

    def strip(j: Any) -> tuple[Any, ...]:
        strips = [ops.slice(a, start(j, a), (*a.shape[:-1], width)) for a in arrays]
        return function(*strips, j * width + ops.arange(width, dtype="int32"))

    def body(j: Any, results: tuple[Any, ...]) -> tuple[Any, ...]:
        parts = zip(results, strip(j), strict=True)
        return tuple(ops.slice_update(result, start(j, part), part) for result, part in parts)

    # The first strip tells the shapes of the results.
    first = strip(ops.convert_to_tensor(0, "int32"))
    results = tuple(
        ops.pad(part, [(0, 0)] * (len(part.shape) - 1) + [(0, (count - 1) * width)])
        for part in first
    )
    return tuple(r[..., :n] for r in ops.fori_loop(1, count, body, results))


def distinct(n: int, index: Any) -> Any:
    """Which pairs of n neurons with those of some indices are pairs of different ones."""
    return ops.arange(n, dtype="int32")[:, None] != index[None, :]
