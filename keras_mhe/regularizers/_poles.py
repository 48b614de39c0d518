"""Measures of neurons relative to a pole, a point of the sphere: learned, or the worst one."""

import math
from typing import Any, Protocol

import keras
from keras import ops

from keras_mhe._arguments import check_choice, check_flag, check_nonnegative
from keras_mhe._backend import matmul, normals
from keras_mhe._random import fingerprint, seed_of
from keras_mhe._typing import NeuronAxis, Shape, State, Tensor
from keras_mhe.energies._neurons import tangent_gradient, tangent_part, unit_neurons
from keras_mhe.energies._programs import EnergyProgram, program_for
from keras_mhe.regularizers._base import HypersphericalRegularizer

# The search for the worst pole: random starts (besides the point opposite to the mean neuron),
# steps from each, the angle of the first step, and the factor by which angles shrink.
_STARTS, _STEPS, _ANGLE, _SHRINK = 24, 30, 0.5, 0.85


class Objective(Protocol):
    """A function of the cosines between the pole and all neurons.

    Attributes:
        pole_sign: 1 if the pole increases the function, -1 if it decreases it.
        loss_sign: sign of the function in the loss.
    """

    pole_sign: float
    loss_sign: float

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Values for each row of cosines, and the derivatives with respect to the cosines."""


def _at_pole(
    matrix: Tensor, direction: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and factors of its gradient, for a unit vector of shape `(d,)` or `(groups, d)`."""
    unit, reciprocal = unit_neurons(matrix)
    groups = math.prod(matrix.shape[:-2])
    value, slope = objective(ops.sum(direction[..., None] * unit, axis=-2))
    gradient = direction[..., None] * slope[..., None, :]
    weight = objective.loss_sign / groups
    return weight * ops.sum(value), weight * tangent_part(unit, gradient), reciprocal


def _value_and_tangent(
    matrix: Tensor, pole: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    direction, _ = unit_neurons(pole[:, None])
    return _at_pole(matrix, direction[:, 0], objective)


def _pole_step(matrix: Tensor, pole: Tensor, objective: Objective, rate: float) -> Tensor:
    """The pole after one gradient step."""
    unit, _ = unit_neurons(matrix)
    direction, reciprocal = unit_neurons(pole[:, None])
    _, slope = objective(ops.sum(direction * unit, axis=-2))
    # All groups share one pole.
    gradient = ops.sum(unit * slope[..., None, :], axis=-1)
    gradient = ops.sum(ops.reshape(gradient, (-1, pole.shape[0])), axis=0)
    groups = math.prod(matrix.shape[:-2])
    gradient = tangent_gradient(direction, reciprocal, gradient[:, None], 1.0 / groups)
    return pole + objective.pole_sign * rate * gradient[:, 0]


def _normalize(vectors: Tensor) -> Tensor:
    # Not `unit_neurons`: its treatment of extreme norms would make the search 1.5 times as long.
    square = ops.sum(ops.square(vectors), axis=-2, keepdims=True)
    return vectors * ops.where(square > 0, ops.rsqrt(ops.where(square > 0, square, 1.0)), 0.0)


def _worst_pole(matrix: Tensor, objective: Objective) -> Tensor:
    """The worst unit vector found for the neurons of each group, `(d,)` or `(groups, d)`."""
    *batch, d, _ = matrix.shape
    unit, _ = unit_neurons(matrix)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    # Each training step has different starts, so a later search can find a pole that one misses.
    starts = normals((*batch, d, _STARTS), dtype, seed_of(fingerprint(matrix)))
    opposite = -ops.sum(unit, axis=-1, keepdims=True)
    poles = _normalize(ops.concatenate([starts, opposite], axis=-1))

    def cosines(poles: Tensor) -> Tensor:
        return matmul(ops.swapaxes(poles, -1, -2), unit)

    def step(i: Tensor, poles: Tensor) -> Tensor:
        _, slope = objective(cosines(poles))
        change = objective.pole_sign * matmul(unit, ops.swapaxes(slope, -1, -2))
        change = change - poles * ops.sum(poles * change, axis=-2, keepdims=True)
        angle = _ANGLE * ops.exp(math.log(_SHRINK) * ops.cast(i, dtype))
        return _normalize(ops.cos(angle) * poles + ops.sin(angle) * _normalize(change))

    poles = ops.fori_loop(0, _STEPS, step, poles)
    value, _ = objective(cosines(poles))
    best = ops.argmax(objective.pole_sign * value, axis=-1)
    chosen = ops.one_hot(best, poles.shape[-1], dtype=dtype)
    return ops.sum(poles * chosen[..., None, :], axis=-1)


def _worst_value_and_tangent(matrix: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    # At its optimum the pole has no first-order effect on the value, so it counts as constant.
    return _at_pole(matrix, _worst_pole(matrix, objective), objective)


class PoleRegularizer(HypersphericalRegularizer):
    """Base class of MHP and MHC. The pole is learned, or searched for each value of a kernel."""

    def __init__(
        self,
        factor: float,
        half_space: bool,
        pole: str,
        learning_rate: float,
        neuron_axis: NeuronAxis,
        groups: int | None,
        bounded: bool,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)
        self.half_space = check_flag(half_space, "half_space")
        self.pole = check_choice(pole, "pole", ("learned", "worst"))
        self.learning_rate = check_nonnegative(learning_rate, "learning_rate")

    def objective(self, matrix: Tensor) -> Objective:
        """The function that the pole increases or decreases."""
        raise NotImplementedError

    @property
    def stateful(self) -> bool:
        return self.pole == "learned"

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        return {"pole": (dimension,)} if self.stateful else {}

    def update_state(self, matrix: Tensor, state: State) -> State:
        if not state:
            return state
        matrix, pole = ops.stop_gradient(matrix), state["pole"]
        options = (self.objective(matrix), self.learning_rate)
        return {"pole": program_for(_pole_step, matrix, pole, options=options)(matrix, pole)}

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        options = (self.objective(matrix),)
        if "pole" not in state:
            return EnergyProgram(_worst_value_and_tangent, options)
        return EnergyProgram(_value_and_tangent, options, (state["pole"],))

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "pole": self.pole,
            "learning_rate": self.learning_rate,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "bounded": self.bounded,
        }
