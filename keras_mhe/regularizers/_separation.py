"""Maximum hyperspherical separation, computed in memory proportional to the kernel."""

import math
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_flag
from keras_mhe._backend import matmul
from keras_mhe._typing import NeuronAxis, State, Tensor
from keras_mhe.energies._blocks import map_column_blocks, off_diagonal_mask
from keras_mhe.energies._neurons import tangent_part, unit_neurons
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.regularizers._base import HypersphericalRegularizer


def _nearest_neurons(unit: Tensor, half_space: bool) -> Tensor:
    """For each neuron, the index of the nearest other one (in half space, up to its sign)."""
    n = unit.shape[-1]

    def nearest(own: Tensor, index: Tensor) -> tuple[Tensor]:
        cosine = matmul(ops.swapaxes(unit, -1, -2), own)
        closeness = ops.abs(cosine) if half_space else cosine
        closeness = ops.where(off_diagonal_mask(n, index), closeness, -2.0)
        return (ops.cast(ops.argmax(closeness, axis=-2, keepdims=True), "int32"),)

    return map_column_blocks(nearest, unit)[0][..., 0, :]


def _value_and_tangent(
    matrix: Tensor, half_space: bool, all_neurons: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    *batch, d, n = matrix.shape
    if n == 1:
        # A single neuron has no distance in full space; its own mirror image is at distance 2.
        own_image = 2.0 if all_neurons else 4.0
        zeros = ops.zeros_like(matrix)
        return ops.sum(zeros) - (own_image if half_space else 0.0), zeros, None
    groups = math.prod(batch)
    unit, reciprocal = unit_neurons(matrix)
    # One list of neurons as rows, for all groups.
    rows = ops.reshape(ops.swapaxes(unit, -1, -2), (groups * n, d))
    offset = n * ops.arange(groups, dtype="int32")[:, None]
    nearest = ops.reshape(_nearest_neurons(unit, half_space), (groups, n))
    nearest = ops.reshape(nearest + offset, (-1,))
    other = ops.take(rows, nearest, axis=0)
    mirrored = ops.sum(rows * other, axis=-1, keepdims=True) < 0
    sign = 1.0 - 2.0 * ops.cast(mirrored, unit.dtype) if half_space else 1.0
    # Distances are computed from differences. Cosines near 1 have too few digits for small ones.
    gap = rows - sign * other
    zero = ops.cast(ops.reshape(reciprocal == 0, (-1,)), unit.dtype)
    # A zero neuron counts as orthogonal to all others.
    square = ops.sum(ops.square(gap), axis=-1) + zero + ops.take(zero, nearest, axis=0)
    share = 1.0 / groups
    if all_neurons:
        # The distance is not squared, so that the force does not vanish when two neurons meet.
        apart = square > 0
        distance = ops.sqrt(ops.where(apart, square, 1.0))
        measure = ops.where(apart, distance, 0.0) * (share / n)
        weight = ops.where(apart, 1.0 / distance, 0.0) * (share / n)
    else:
        first = ops.argmin(ops.reshape(square, (groups, n)), axis=-1)
        index = ops.arange(n, dtype="int32")
        closest = index[None, :] == ops.cast(first, "int32")[:, None]
        closest = share * ops.cast(ops.reshape(closest, (-1,)), unit.dtype)
        measure, weight = closest * square, 2.0 * closest
    force = weight[:, None] * gap
    gradient = ops.segment_sum(sign * force, nearest, num_segments=groups * n) - force
    gradient = ops.swapaxes(ops.reshape(gradient, (*batch, n, d)), -1, -2)
    return -ops.sum(measure), tangent_part(unit, gradient), reciprocal


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHS(HypersphericalRegularizer):
    """Maximum hyperspherical separation: pushes the two closest neurons apart.

    `loss = -factor * min over i != j of |u_i - u_j|^2`, where `u_i` are the neurons on the unit
    sphere. Only the closest pair has a gradient. If several pairs are equally close, one of them is
    used.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 0.1 in hidden layers and 1 in the
            output layer.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        all_neurons: whether the loss is minus the mean distance (not squared) of the neurons to
            their nearest neighbors, which has a gradient for all neurons. This extends the paper.
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
        >>> from keras_mhe import MHS
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MHS(1.0))
    """

    def __init__(
        self,
        factor: float = 0.1,
        *,
        half_space: bool = False,
        all_neurons: bool = False,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)
        self.half_space = check_flag(half_space, "half_space")
        self.all_neurons = check_flag(all_neurons, "all_neurons")

    def moving(self, n: int) -> int:
        return n if self.all_neurons else min(n, 2)

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        return EnergyProgram(_value_and_tangent, (self.half_space, self.all_neurons))

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "all_neurons": self.all_neurons,
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
