"""The hyperspherical energy of a kernel, compiled, with its analytic gradient."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled, differentiated_on_demand
from keras_mhe.axes import neuron_matrix
from keras_mhe.pairs import panel_width, value_and_gradient
from keras_mhe.potentials import Potential, potential_of


def _once(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program that cannot be differentiated: no tape looks into its loops."""

    @ops.custom_gradient
    def run(matrix: Any, *others: Any) -> Any:
        def refuse(*args: Any, upstream: Any = None) -> Any:
            raise NotImplementedError(
                "The gradient of an energy that is sampled, projected or, as it has many neurons, "
                "computed part by part cannot be differentiated once more. "
                f"Received: {matrix.shape[-1]} neurons"
            )

        return program(ops.stop_gradient(matrix), *others), refuse

    return run


def with_gradient(program: Callable[..., Any], matrix: Any, *others: Any, twice: bool) -> Any:
    """The value of a program that returns value and gradient, as a function with that gradient.

    Args:
        program: function of the matrix and others that returns a scalar and a tensor shaped like
            the matrix.
        matrix: its first argument.
        others: its other arguments, which get no gradient. (JAX cannot see tensors that the
            program itself brings along.)
        twice: whether the gradient can be differentiated in its turn.
    """
    run = differentiated_on_demand(program) if twice else _once(program)

    @ops.custom_gradient
    def energy(matrix: Any, *others: Any) -> Any:
        value, gradient = run(matrix, *others)

        def pull_back(*args: Any, upstream: Any = None) -> Any:
            # PyTorch passes the inputs first and names the upstream gradient.
            change = gradient * (args[0] if upstream is None else upstream)
            return (change, *[None] * len(others)) if others else change

        return value, pull_back

    return energy(matrix, *others)


@functools.lru_cache(maxsize=256)
def _compiled_energy(shape: tuple[int, ...], dtype: str, potential: Potential) -> Any:
    return compiled(lambda matrix: value_and_gradient(matrix, potential), (shape, dtype))


def energy_of(matrix: Any, potential: Potential) -> Any:
    """The energy of a matrix of shape `(d, N)` or `(groups, d, N)`, all pairs counted."""
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_energy(tuple(matrix.shape), dtype, potential)
    return with_gradient(program, matrix, twice=panel_width(matrix.shape[-1]) is None)


def hyperspherical_energy(
    kernel: Any,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    neuron_axis: int | Sequence[int] | None = None,
    groups: int | None = None,
    softening: float | str = "auto",
) -> Any:
    """Riesz s-energy of the neurons of a kernel, projected onto the unit sphere.

    `E = mean over i != j of |u_i - u_j|^(-s)`, `u_i = w_i / |w_i|`; for `s = 0`, the mean of
    `-log |u_i - u_j|`. With `distance="angular"` the angle `arccos(u_i . u_j)` in radians stands
    in place of the distance. In half space the mean is over the 2N points `u_i` and `-u_i`, the
    pairs `(u_i, -u_i)` included, so that neurons on one line repel as well.

    The gradient is analytic and takes, with the value, two matrix products; those of more than a
    thousand neurons go by panels, in memory proportional to the kernel. It is orthogonal to every
    neuron. Neurons of norm zero have cosine 0 to all others and gradient 0; a single neuron
    has energy 0 (half space: that of its own pair) and gradient 0.

    Args:
        kernel: floating-point tensor or variable of shape `(..., N)`, at least two axes, a neuron
            a column; `neuron_axis` for others. Computed in float32, float64 for a float64 kernel.
        s: power of the potential, zero or more; 0 is the logarithm. In float32 a potential whose
            steepest slope (`s * floor^(-s/2 - 1)`) exceeds 1e38 overflows.
        distance: `"euclidean"` or `"angular"`.
        half_space: also count the mirror image of each neuron.
        neuron_axis: the axis or axes of the kernel that index its neurons; the others are
            coordinates. `None` is the last axis, as in Dense and Conv.
        groups: number of equal, contiguous groups of neurons which compete only among
            themselves, as in grouped convolutions. The energy is the mean over groups.
        softening: Euclidean distance below which the potential goes on as a straight line in the
            cosine, so that forces stay finite. `"auto"` depends on how crowded the sphere is and
            is never more than 0.32; 0 asks for the singular potential, down to the distance that
            rounding still resolves. The slope of angles near 180 degrees, infinite in the cosine,
            is held as well: only there the gradient is not the derivative of the value.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: for an integer kernel or an argument of the wrong type.
        ValueError: for an argument out of range, a kernel with fewer than two axes, an axis that
            the kernel lacks or `groups` that do not divide the number of neurons.
        NotImplementedError: for second derivatives of an energy computed by panels.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import numpy as np
        >>> from keras_mhe import hyperspherical_energy
        >>> square = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]], "float32")
        >>> round(float(hyperspherical_energy(square)), 4)  # (1/2 + 1/2 + 1/4) / 3
        0.4167
    """
    matrix = neuron_matrix(kernel, neuron_axis, groups)
    potential = potential_of(matrix, s, distance, half_space, softening)
    return energy_of(matrix, potential)
