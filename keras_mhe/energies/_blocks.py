"""Functions of all pairs of neurons, computed by blocks of columns in limited memory."""

from collections.abc import Callable

from keras import ops

from keras_mhe._backend import write_slice
from keras_mhe._typing import Tensor

# The number of cosines in memory at a time. Smaller blocks are slower.
_BLOCK = 2**21
# The number of columns of a block if the number of all columns is unknown.
_WIDTH = 256


def map_column_blocks(
    function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor
) -> tuple[Tensor, ...]:
    """Applies a function of columns to all columns of the arrays, one block at a time.

    Args:
        function: function of blocks of the arrays and of the indices of their columns. It returns
            tensors with the same number of columns.
        arrays: tensors of shape `(..., rows, n)`, where n may be unknown.

    Returns:
        The results for all columns.
    """
    n = ops.shape(arrays[0])[-1]
    if isinstance(n, int) and n * n <= _BLOCK:
        return function(*arrays, ops.arange(n, dtype="int32"))
    width = max(16, _BLOCK // n) if isinstance(n, int) else _WIDTH
    count = -(-n // width)
    padding = [(0, 0)] * (len(arrays[0].shape) - 1) + [(0, count * width - n)]
    arrays = tuple(ops.pad(array, padding) for array in arrays)

    def start(j: Tensor, tensor: Tensor) -> tuple[Tensor, ...]:
        return (*[j * 0] * (len(tensor.shape) - 1), j * width)

    def block(j: Tensor) -> tuple[Tensor, ...]:
        blocks = [ops.slice(a, start(j, a), (*a.shape[:-1], width)) for a in arrays]
        return function(*blocks, j * width + ops.arange(width, dtype="int32"))

    def body(j: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        parts = zip(results, block(j), strict=True)
        return tuple(write_slice(result, start(j, part), part) for result, part in parts)

    # The first block defines the shapes of the results.
    first = block(ops.convert_to_tensor(0, "int32"))
    results = tuple(
        ops.pad(part, [(0, 0)] * (len(part.shape) - 1) + [(0, (count - 1) * width)])
        for part in first
    )
    return tuple(r[..., :n] for r in ops.fori_loop(1, count, body, results))


def off_diagonal_mask(n: int, index: Tensor) -> Tensor:
    """A mask of shape `(n, len(index))`: True for pairs of different neurons."""
    return ops.arange(n, dtype="int32")[:, None] != index[None, :]
