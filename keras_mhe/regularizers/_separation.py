"""Maximum hyperspherical separation and its measures, in memory proportional to the kernel."""

import math
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_choice, check_flag
from keras_mhe._backend import at_least, matmul
from keras_mhe._typing import NeuronAxis, State, Tensor
from keras_mhe.energies._blocks import map_column_blocks, off_diagonal_mask
from keras_mhe.energies._neurons import tangent_part, unit_neurons
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.energies._softening import epsilon_of
from keras_mhe.regularizers._base import HypersphericalRegularizer

# The measures of the distance to the nearest neighbor, with their values for opposite points.
_FARTHEST = {"squared": 4.0, "distance": 2.0, "log": math.log(2), "angle": math.pi}
# The gradient of an angle is constant where the distance from the mirror image is smaller.
_SMALLEST_OPPOSITE = 0.014


def _nearest_neurons(unit: Tensor, half_space: bool, counted: Tensor) -> Tensor:
    """For each neuron, the index of the nearest other one (in half space, up to its sign).

    Only neurons that count are near others.
    """

    def nearest(own: Tensor, index: Tensor) -> tuple[Tensor]:
        cosine = matmul(ops.swapaxes(unit, -1, -2), own)
        closeness = ops.abs(cosine) if half_space else cosine
        pairs = off_diagonal_mask(ops.shape(unit)[-1], index)
        closeness = ops.where(ops.logical_and(pairs, counted[:, None]), closeness, -2.0)
        return (ops.cast(ops.argmax(closeness, axis=-2, keepdims=True), "int32"),)

    return map_column_blocks(nearest, unit)[0][..., 0, :]


def _measured(square: Tensor, opposite: Tensor, measure: str, epsilon: Any) -> tuple[Tensor, Any]:
    """Values of a measure of distances, and twice their derivatives in the squared distances.

    Args:
        square: squared distances of neurons.
        opposite: squared distances of the first neurons from the mirror images of the second ones.
        measure: one of `_FARTHEST`.
        epsilon: the squared distance below which logarithms are continued linearly.
    """
    if measure == "squared":
        return square, 2.0
    if measure == "log":
        clipped = at_least(square, epsilon)
        return (ops.log(clipped) + (square - clipped) / clipped) / 2.0, 1.0 / clipped
    # These measures have a force that does not vanish when two neurons meet.
    apart = square > 0
    distance = ops.sqrt(ops.where(apart, square, 1.0))
    if measure == "distance":
        return ops.where(apart, distance, 0.0), ops.where(apart, 1.0 / distance, 0.0)
    # The angle is 2 arcsin(distance / 2), which would lose digits near opposite neurons.
    opposite = ops.sqrt(opposite)
    angle = 2.0 * ops.arctan2(distance, opposite)
    # This is the reciprocal of the sine. Rounding would dominate the gradient of opposite neurons.
    rate = 2.0 / (distance * at_least(opposite, _SMALLEST_OPPOSITE))
    return ops.where(apart, angle, 0.0), ops.where(apart, rate, 0.0)


def _value_and_tangent(
    matrix: Tensor, n: Tensor, half_space: bool, all_neurons: bool, measure: str, epsilon: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *batch, d, _ = matrix.shape
    groups, columns = math.prod(batch), ops.shape(matrix)[-1]
    index = ops.arange(columns, dtype="int32")
    counted = index < n
    unit, reciprocal = unit_neurons(matrix, groups * n)
    # One list of neurons as rows, for all groups.
    rows = ops.reshape(ops.swapaxes(unit, -1, -2), (-1, d))
    offset = columns * ops.arange(groups, dtype="int32")[:, None]
    nearest = ops.reshape(_nearest_neurons(unit, half_space, counted), (groups, -1))
    nearest = ops.reshape(nearest + offset, (-1,))
    other = ops.take(rows, nearest, axis=0)
    mirrored = ops.sum(rows * other, axis=-1, keepdims=True) < 0
    sign = 1.0 - 2.0 * ops.cast(mirrored, unit.dtype) if half_space else 1.0
    # Distances are computed from differences. Cosines near 1 have too few digits for small ones.
    gap = rows - sign * other
    zero = ops.cast(ops.reshape(reciprocal == 0, (-1,)), unit.dtype)
    # A zero neuron counts as orthogonal to all others.
    missing = zero + ops.take(zero, nearest, axis=0)
    square = ops.sum(ops.square(gap), axis=-1) + missing
    opposite = ops.sum(ops.square(rows + sign * other), axis=-1) + missing
    value, rate = _measured(square, opposite, measure, epsilon)
    if all_neurons:
        chosen, share = counted[None, :], 1.0 / at_least(ops.cast(n, unit.dtype), 1.0)
        chosen = ops.broadcast_to(chosen, (groups, columns))
    else:
        candidates = ops.where(counted, ops.reshape(square, (groups, -1)), math.inf)
        first = ops.cast(ops.argmin(candidates, axis=-1), "int32")
        chosen, share = index[None, :] == first[:, None], 1.0
    # A single neuron has no distance in full space; its own mirror image is farthest away.
    share = ops.cast(ops.reshape(chosen, (-1,)), unit.dtype) * (share / groups)
    share = ops.where(n > 1, share, 0.0)
    alone = ops.where(n == 1, _FARTHEST[measure] if half_space else 0.0, 0.0)
    force = (share * rate)[:, None] * gap
    gradient = ops.segment_sum(sign * force, nearest, num_segments=groups * columns) - force
    gradient = ops.swapaxes(ops.reshape(gradient, (*batch, -1, d)), -1, -2)
    separation = ops.sum(share * value) + ops.cast(alone, unit.dtype)
    return -separation, tangent_part(unit, gradient), reciprocal


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHS(HypersphericalRegularizer):
    """Maximum hyperspherical separation: pushes the two closest neurons apart.

    `loss = -factor * min over i != j of |u_i - u_j|^2`, where `u_i` are the neurons on the unit
    sphere. Only the closest pair has a gradient. If several pairs are equally close, one of them is
    used.

    With `all_neurons=True`, `loss = -factor * mean over i of m(min over j != i of |u_i - u_j|)`,
    which has a gradient for all neurons. The measure m of a distance is

    - None: the distance, not squared, which extends the paper;
    - `"squared"`: the squared distance;
    - `"log"`: the logarithm of the distance, as in the loss KoLeo. Below the softening distance of
      `MHE`, it is continued linearly in the cosine, so that it is finite;
    - `"angle"`: the angle in radians, as in the loss MMA.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 0.1 in hidden layers and 1 in the
            output layer.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        all_neurons: whether the loss is a mean over all neurons. If False, it is minus the measure
            of the closest pair. `None` means True if a measure is given, and False otherwise.
        measure: the measure of a distance: `"squared"`, `"log"`, `"angle"` or `None`. For the
            closest pair, `None` means the squared distance.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`.
        NotImplementedError: if second derivatives are requested.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS. Logarithms:
    Sablayrolles et al. (2019), "Spreading vectors for similarity search", ICLR. Angles: Wang et al.
    (2020), "MMA Regularization: Decorrelating Weights of Neural Networks by Maximizing the Minimal
    Angles", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MHS
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MHS(1.0))
        >>> koleo = MHS(measure="log")
    """

    of_batches = True

    def __init__(
        self,
        factor: float = 0.1,
        *,
        half_space: bool = False,
        all_neurons: bool | None = None,
        measure: str | None = None,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)
        self.half_space = check_flag(half_space, "half_space")
        self.measure = measure
        if measure is not None:
            self.measure = check_choice(measure, "measure", ("squared", "log", "angle"))
        if all_neurons is None:
            all_neurons = measure is not None
        self.all_neurons = check_flag(all_neurons, "all_neurons")

    def moving(self, n: int) -> int:
        return n if self.all_neurons else min(n, 2)

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        return self.batch_program(matrix, matrix.shape[-1])

    def batch_program(self, points: Tensor, n: Any) -> EnergyProgram:
        measure = self.measure or ("distance" if self.all_neurons else "squared")
        dtype = keras.backend.standardize_dtype(points.dtype)
        count = max(n, 1) if isinstance(n, int) else n
        count = 2 * count if self.half_space else count
        epsilon = epsilon_of("auto", count, points.shape[-2], dtype)
        options = (self.half_space, self.all_neurons, measure, epsilon)
        return EnergyProgram(_value_and_tangent, options, (ops.convert_to_tensor(n, "int32"),))

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "all_neurons": self.all_neurons,
            # Files without a measure load in earlier versions too.
            **({} if self.measure is None else {"measure": self.measure}),
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "bounded": self.bounded,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MHS":
        config = dict(config)
        # The name of the argument in files saved before 0.1.0 was released.
        if "every" in config:
            config["all_neurons"] = config.pop("every")
        return cls(**config)
