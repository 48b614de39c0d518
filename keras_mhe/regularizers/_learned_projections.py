"""Learned projections of compressive MHE. The layer wrapper stores them."""

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_flag, check_nonnegative
from keras_mhe._typing import Shape, State, Tensor
from keras_mhe.energies._energy import energy_program
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram, program_for
from keras_mhe.reference._energies import uniform_energy
from keras_mhe.regularizers._projection_steps import (
    CosineDistance,
    FullSpaceEnergy,
    Objective,
    gradient_steps,
    projected_value_and_tangent,
    value_and_tangent_after_step,
)
from keras_mhe.regularizers._projections import Projection


def _value_and_tangent(
    matrix: Tensor, projection: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    return projected_value_and_tangent(matrix, projection[None], potential)


@dataclass(frozen=True)
class LearnedProjection(Projection):
    """Base class of the learned projections: they start at random and take gradient steps."""

    dim: int = 30
    learning_rate: float = 0.1
    steps: int = 1
    unroll: bool = True

    def __post_init__(self) -> None:
        self._set_integer("dim", least=2)
        self._set_integer("steps")
        rate = check_nonnegative(self.learning_rate, "learning_rate")
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "unroll", check_flag(self.unroll, "unroll"))

    @abc.abstractmethod
    def objective(self, matrix: Tensor, spec: PotentialSpec) -> Objective:
        """The function that the steps decrease or increase."""

    @property
    def stateful(self) -> bool:
        return True

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        return {} if dimension <= self.dim else {"projection": (self.dim, dimension)}

    def update_state(self, matrix: Tensor, state: State, spec: PotentialSpec) -> State:
        if not state:
            return state
        matrix, projection = ops.stop_gradient(matrix), state["projection"]
        options = (self.objective(matrix, spec), self.learning_rate, self.steps)
        program = program_for(gradient_steps, matrix, projection, options=options)
        return {"projection": program(matrix, projection)}

    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        return [(1.0, min(dimension, self.dim))]

    def program(self, matrix: Tensor, state: State, spec: PotentialSpec) -> EnergyProgram:
        if matrix.shape[-2] <= self.dim:
            return energy_program(matrix, spec.of_neurons(matrix))
        potential, others = spec.of_neurons(matrix, self.dim), (state["projection"],)
        if not self.unroll:
            return EnergyProgram(_value_and_tangent, (potential,), others)
        options = (self.objective(matrix, spec), self.learning_rate, potential)
        return EnergyProgram(value_and_tangent_after_step, options, others)


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class AngleProjection(LearnedProjection):
    """Learned projection of compressive MHE that preserves angles.

    `E(P'W)`, where `P' = P - learning_rate * dL/dP` and `L = |cos(PW) - cos(W)|_F`. Here `cos` is
    the matrix of cosines between neurons. P has the shape `(dim, d)`, W has the shape `(d, N)`.

    The layer wrapper stores P, which starts with entries drawn from `N(0, 1)`. In each training
    step, P takes `steps` gradient steps that decrease L. The loss uses P', which is one step
    further. This step is not stored, and the gradient of the loss passes through it.

    Args:
        dim: number of dimensions after projection, at least 2. Neurons with at most `dim`
            coordinates are not projected.
        learning_rate: size of a step, zero or larger. The learning rate of the network has no
            effect on it.
        steps: number of steps of P in a training step. P takes none if the kernel has not changed
            since the last one, as when gradients accumulate or the network's learning rate is zero.
        unroll: whether the loss uses P'. If False, it uses P.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> import keras
        >>> from keras_mhe import AngleProjection, CoMHE, HypersphericalRegularization
        >>> regularizer = CoMHE(projection=AngleProjection(dim=20))
        >>> layer = HypersphericalRegularization(keras.layers.Dense(64), regularizer)
        >>> layer.build((None, 100))
        >>> tuple(layer.state["projection"].shape)
        (20, 100)
    """

    def objective(self, matrix: Tensor, spec: PotentialSpec) -> Objective:
        return CosineDistance()


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class AdversarialProjection(LearnedProjection):
    """Learned projection of compressive MHE that brings neurons close to each other.

    `E(P'W)`, where `P' = P + learning_rate * dL/dP` and L is the energy of PW in full space. P has
    the shape `(dim, d)`, W has the shape `(d, N)`.

    The layer wrapper stores P, which starts with entries drawn from `N(0, 1)`. In each training
    step, P takes `steps` gradient steps that increase L. The loss uses P', which is one step
    further. This step is not stored, and the gradient of the loss passes through it.

    A step that would raise L above `2^(s/2) U` is not taken (`U + log(2) / 2` for `s = 0`). U is
    the energy of random neurons in `dim` dimensions, so this is their energy if all distances were
    shorter by a factor of `sqrt(2)`. Without a limit, a P that moves faster than the neurons ends
    with rank one, and all projected neurons have one direction, whatever W is. Use at least
    `s + 2` dimensions. In fewer, the closest pairs dominate the energy, and P reaches the limit
    within a few training steps.

    Args:
        dim: number of dimensions after projection, at least 2. Neurons with at most `dim`
            coordinates are not projected.
        learning_rate: size of a step, zero or larger. The learning rate of the network has no
            effect on it.
        steps: number of steps of P in a training step, as in `AngleProjection`.
        unroll: whether the loss uses P'. If False, it uses P.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> import keras
        >>> from keras_mhe import AdversarialProjection, CoMHE, HypersphericalRegularization
        >>> regularizer = CoMHE(projection=AdversarialProjection(steps=3))
        >>> layer = HypersphericalRegularization(keras.layers.Conv2D(64, 3), regularizer)
    """

    steps: int = 10

    def objective(self, matrix: Tensor, spec: PotentialSpec) -> Objective:
        full_space = dataclasses.replace(spec, half_space=False)
        n, distance, softening = matrix.shape[-1], spec.distance, spec.softening
        limit = uniform_energy(n, self.dim, spec.s, distance=distance, softening=softening)
        # The energy of random neurons whose distances are shorter by a factor of sqrt(2).
        limit = limit * 2 ** (spec.s / 2) if spec.s else limit + math.log(2) / 2
        # CoMHE refuses a Gaussian with this projection.
        potential: Any = full_space.of_neurons(matrix, self.dim)
        return FullSpaceEnergy(potential, limit)
