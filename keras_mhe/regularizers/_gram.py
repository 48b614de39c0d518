"""Maximum Gram determinant of neurons under a Gaussian kernel."""

import math
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_flag
from keras_mhe._backend import at_least, cholesky, matmul
from keras_mhe._typing import NeuronAxis, State, Tensor
from keras_mhe.energies._blocks import off_diagonal_mask
from keras_mhe.energies._neurons import tangent_part, unit_neurons
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.regularizers._base import HypersphericalRegularizer

# The definition adds this to the diagonal.
_JITTER = 1e-6
# Smaller pivots may be rounding errors.
_SMALLEST_PIVOT = {"float32": 5e-5, "float64": 5e-7}


def _cholesky_factor(gram: Tensor) -> Tensor:
    """The Cholesky factor of a matrix with the smallest jitter for which it is reliable."""
    n, dtype = gram.shape[-1], keras.backend.standardize_dtype(gram.dtype)
    identity = ops.eye(n, dtype=dtype)

    def factor(jitter: Tensor) -> Tensor:
        return cholesky(gram + jitter * identity)

    def unreliable(jitter: Tensor, factor: Tensor) -> Tensor:
        pivots = ops.square(ops.diagonal(factor, axis1=-2, axis2=-1))
        # The comparison is False for NaN, so NaN is unreliable too.
        reliable = pivots >= at_least(jitter / 2, _SMALLEST_PIVOT[dtype])
        return ops.logical_not(ops.all(reliable))

    def more_jitter(jitter: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return 10.0 * jitter, factor(10.0 * jitter)

    jitter = ops.cast(_JITTER, dtype)
    start = (jitter, factor(jitter))
    return ops.while_loop(unreliable, more_jitter, start, maximum_iterations=10)[1]


def _log_determinant(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the determinant, summed over leading axes, and its gradient, the inverse."""
    factor = _cholesky_factor(gram)
    n, dtype = gram.shape[-1], keras.backend.standardize_dtype(gram.dtype)
    half = ops.log(ops.diagonal(factor, axis1=-2, axis2=-1))
    identity = ops.broadcast_to(ops.eye(n, dtype=dtype), gram.shape)
    inverse = ops.linalg.solve_triangular(factor, identity, lower=True)
    return 2.0 * ops.sum(half), matmul(ops.swapaxes(inverse, -1, -2), inverse)


def _value_and_tangent(matrix: Tensor, half_space: bool) -> tuple[Tensor, Tensor, Tensor]:
    *batch, _, n = matrix.shape
    share = 1.0 / math.prod(batch)
    unit, reciprocal = unit_neurons(matrix)
    cosine = matmul(ops.swapaxes(unit, -1, -2), unit)
    mask = off_diagonal_mask(n, ops.arange(n, dtype="int32"))
    cosine = ops.where(mask, cosine, 1.0)
    near = ops.exp(2.0 * cosine - 2.0)
    if half_space:
        # The matrix of the 2N points is block diagonal in sums and differences of mirror images.
        far = ops.exp(-2.0 * cosine - 2.0)
        even, even_inverse = _log_determinant(near + far)
        odd, odd_inverse = _log_determinant(near - far)
        value = even + odd
        slope = even_inverse * (near - far) + odd_inverse * (near + far)
    else:
        value, inverse = _log_determinant(near)
        slope = inverse * near
    slope = ops.where(mask, slope, 0.0)
    # dK/dc = 2K, and each pair occurs in both orders.
    return -share * value, -4.0 * share * tangent_part(unit, matmul(unit, slope)), reciprocal


@keras.saving.register_keras_serializable(package="keras_mhe")
class MGD(HypersphericalRegularizer):
    """Maximum Gram determinant: spreads the neurons by maximizing the volume that they span.

    `loss = -factor * logdet(K + 1e-6 I)`, where `K_ij = exp(-|u_i - u_j|^2)` and `u_i` are the
    neurons on the unit sphere. Time is proportional to `N^3` and memory to `N^2`. Use it for layers
    of up to about 1,000 neurons.

    For many neurons in few dimensions, float32 cannot distinguish the determinant from zero. The
    term 1e-6 is then multiplied by ten, several times if necessary, until every pivot of the
    factorization exceeds 5e-5 (5e-7 in float64). Value and gradient are therefore always finite.
    They are exact if the smallest eigenvalue of K exceeds 1e-4.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`.
        NotImplementedError: if second derivatives are requested.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MGD
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MGD(0.1))
    """

    def __init__(
        self,
        factor: float = 0.01,
        *,
        half_space: bool = False,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)
        self.half_space = check_flag(half_space, "half_space")

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        return EnergyProgram(_value_and_tangent, (self.half_space,))

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "bounded": self.bounded,
        }
