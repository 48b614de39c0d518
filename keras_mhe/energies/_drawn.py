"""The energy of a few random groups of neurons, whose time does not grow with the layer."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_integer
from keras_mhe._backend import matmul
from keras_mhe._random import fingerprint, seed_of
from keras_mhe._typing import Tensor
from keras_mhe.energies._neurons import tangent_part, unit_neurons
from keras_mhe.energies._pairs import mean_over_points, relative_to_closest
from keras_mhe.energies._potential import Potential
from keras_mhe.energies._programs import EnergyProgram, program_for

# The expected number of drawn neurons whose bits are in the seed. With probability 1 - e^-16, one
# of them is, so that a step which moves drawn neurons only gives a new draw too.
_SEEDING = 16


def check_sample_groups(sample_groups: int | None, sample: int | None) -> int | None:
    """Returns the number of random groups, or None."""
    if sample_groups is None:
        return None
    if sample is None:
        raise ValueError(
            "Argument `sample_groups` needs `sample`, the number of neurons in a group. "
            f"Received: sample_groups={sample_groups!r}, sample=None"
        )
    expected = "a positive integer or None"
    return check_integer(sample_groups, "sample_groups", least=1, expected=expected)


def _numbers(matrix: Tensor, count: int, sample: int, as_rows: bool) -> Tensor:
    """Random numbers of neurons, of shape `(count, sample)`, which may repeat."""
    # To read all bits would take a quarter of a step that updates nothing else.
    if as_rows:
        part, n = matrix[..., :: max(1, count * sample // _SEEDING), :], matrix.shape[-2]
    else:
        part, n = matrix[..., : -(-matrix.shape[-2] // 8), :], matrix.shape[-1]
    seed = seed_of(fingerprint(part))
    return keras.random.randint((count, sample), 0, n, dtype="int32", seed=seed)


def _value_and_tangent(
    matrix: Tensor, numbers: Tensor, potential: Potential, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    *batch, count, _, sample = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    # A neuron that was drawn twice does not meet itself.
    mask = numbers[:, :, None] != numbers[:, None, :]

    def is_pair(index: Tensor) -> Tensor:
        return ops.take(mask, index, axis=-1)

    potential = relative_to_closest(potential, unit, unit, is_pair)
    value, slope = potential(matmul(ops.swapaxes(unit, -1, -2), unit))
    sums = ops.sum(ops.where(mask, value, 0.0), axis=-2)
    gradient = matmul(unit, ops.where(mask, slope, 0.0))
    # The expected number of pairs. Their number in this draw would bias the estimate.
    pairs = math.prod(batch) * count * sample * (sample - 1) * (n - 1) / n
    value, weight = mean_over_points(sums, pairs, n, potential)
    return value, 2.0 * weight * tangent_part(unit, gradient), reciprocal


@dataclass(frozen=True)
class DrawnProgram:
    """The energy of `count` random groups of `sample` neurons: an unbiased estimate.

    It is used like an `EnergyProgram`. All neurons are drawn independently, from bits of the
    matrix, so a changed matrix gives a new draw. The gradient of the neurons that are not drawn is
    zero, and nothing of their size is computed. The floor under norms is that of the drawn neurons.

    Attributes:
        potential: energy of a pair of the whole layer.
        count: number of groups.
        sample: number of neurons in a group.
        as_rows: whether the matrix is the transpose of a kernel, whose rows are neurons.
    """

    potential: Potential
    count: int
    sample: int
    as_rows: bool

    def _drawn(self, matrix: Tensor) -> tuple[Tensor, EnergyProgram]:
        """The drawn neurons, of shape `(..., count, d, sample)`, and their energy."""
        n = matrix.shape[-1]
        # The backends leave out a second transpose, and gather whole rows of the kernel.
        matrix = ops.swapaxes(matrix, -1, -2) if self.as_rows else matrix
        options = (self.count, self.sample, self.as_rows)
        numbers = program_for(_numbers, matrix, options=options)(ops.stop_gradient(matrix))
        axis = len(matrix.shape) - (2 if self.as_rows else 1)
        drawn = ops.take(matrix, numbers, axis=axis)
        drawn = ops.swapaxes(drawn, -1, -2) if self.as_rows else ops.swapaxes(drawn, -2, -3)
        return drawn, EnergyProgram(_value_and_tangent, (self.potential, n), (numbers,))

    def energy(self, matrix: Tensor) -> Tensor:
        """The estimated energy of a matrix, as a differentiable scalar tensor."""
        drawn, program = self._drawn(matrix)
        return program.energy(drawn)

    def loss(self, matrix: Tensor, *arguments: Any) -> Tensor:
        """`factor * (energy - offset)`, as `EnergyProgram.loss`."""
        drawn, program = self._drawn(matrix)
        return program.loss(drawn, *arguments)
