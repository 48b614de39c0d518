"""Energies of neurons against one point of the sphere, the pole: learned, or the worst there is."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled, normals
from keras_mhe.energy import with_gradient
from keras_mhe.pairs import gradient_from_pull, unit_neurons
from keras_mhe.potentials import Potential
from keras_mhe.seeds import fingerprint, seed_of

# The search for the worst pole: so many random starts beside the one away from all neurons, and
# steps of angles that shrink from the first by this factor.
_STARTS, _STEPS, _ANGLE, _SHRINK = 24, 30, 0.5, 0.85


@dataclass(frozen=True)
class Polarization:
    """`mean over i of |v - u_i|^(-s)`: the pole v flees the neurons, which follow it."""

    potential: Potential
    # Whether pole and loss go up or down in it.
    pole, loss = -1.0, -1.0

    def __call__(self, cosine: Any) -> tuple[Any, Any]:
        """Means over the last axis, and slopes in the cosines."""
        points = cosine.shape[-1] * (2 if self.potential.half_space else 1)
        value, slope = self.potential(cosine)
        return ops.sum(value / points, axis=-1), slope / points


@dataclass(frozen=True)
class Covering:
    """`-(1/gamma) log mean over i of exp(-gamma |v - u_i|^2)`: the pole v flees, neurons follow."""

    gamma: float
    half_space: bool
    pole, loss = 1.0, 1.0

    def __call__(self, cosine: Any) -> tuple[Any, Any]:
        """As in `Polarization`."""
        cosines = [cosine, -cosine] if self.half_space else [cosine]
        # Relative to the nearest point, whose share does not vanish.
        top = functools.reduce(ops.maximum, cosines)
        top = ops.max(top, axis=-1, keepdims=True)
        shares = [ops.exp(2 * self.gamma * (c - top)) for c in cosines]
        total = ops.sum(sum(shares), axis=-1, keepdims=True)
        points = len(cosines) * cosine.shape[-1]
        value = 2.0 - 2.0 * top - (ops.log(total) - math.log(points)) / self.gamma
        slope = shares[0] - shares[1] if self.half_space else shares[0]
        return value[..., 0], -2.0 * slope / total


Objective = Polarization | Covering


def _at_pole(matrix: Any, direction: Any, objective: Objective) -> tuple[Any, Any]:
    """Loss and gradient in the neurons, for a unit vector `(d,)`, or `(groups, d)`."""
    unit, reciprocal = unit_neurons(matrix)
    groups = math.prod(matrix.shape[:-2])
    value, slope = objective(ops.sum(direction[..., None] * unit, axis=-2))
    pull = direction[..., None] * slope[..., None, :]
    weight = objective.loss / groups
    return weight * ops.sum(value), gradient_from_pull(unit, reciprocal, pull, weight)


def _value_and_gradient(matrix: Any, pole: Any, objective: Objective) -> tuple[Any, Any]:
    direction, _ = unit_neurons(pole[:, None])
    return _at_pole(matrix, direction[:, 0], objective)


def _stepped(matrix: Any, pole: Any, objective: Objective, rate: float) -> Any:
    unit, _ = unit_neurons(matrix)
    direction, reciprocal = unit_neurons(pole[:, None])
    _, slope = objective(ops.sum(direction * unit, axis=-2))
    # One pole serves all groups.
    pull = ops.sum(unit * slope[..., None, :], axis=-1)
    pull = ops.sum(ops.reshape(pull, (-1, pole.shape[0])), axis=0)
    groups = math.prod(matrix.shape[:-2])
    gradient = gradient_from_pull(direction, reciprocal, pull[:, None], 1.0 / groups)
    return pole + objective.pole * rate * gradient[:, 0]


def _normalized(vectors: Any) -> Any:
    # Not `unit_neurons`, whose care for extreme scales makes the search half as long again.
    square = ops.sum(ops.square(vectors), axis=-2, keepdims=True)
    return vectors * ops.where(square > 0, ops.rsqrt(ops.where(square > 0, square, 1.0)), 0.0)


def _worst(matrix: Any, objective: Objective) -> Any:
    """The unit vector that is worst for the neurons of each group: `(d,)`, or `(groups, d)`."""
    *batch, d, _ = matrix.shape
    unit, _ = unit_neurons(matrix)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    # Others at every step of training: what one search misses the next may find.
    starts = normals((*batch, d, _STARTS), dtype, seed_of(fingerprint(matrix)))
    away = -ops.sum(unit, axis=-1, keepdims=True)
    poles = _normalized(ops.concatenate([starts, away], axis=-1))

    def cosines(poles: Any) -> Any:
        return ops.matmul(ops.swapaxes(poles, -1, -2), unit)

    def step(i: Any, poles: Any) -> Any:
        _, slope = objective(cosines(poles))
        change = objective.pole * ops.matmul(unit, ops.swapaxes(slope, -1, -2))
        change = change - poles * ops.sum(poles * change, axis=-2, keepdims=True)
        angle = _ANGLE * ops.exp(math.log(_SHRINK) * ops.cast(i, dtype))
        return _normalized(ops.cos(angle) * poles + ops.sin(angle) * _normalized(change))

    poles = ops.fori_loop(0, _STEPS, step, poles)
    value, _ = objective(cosines(poles))
    best = ops.argmax(objective.pole * value, axis=-1)
    chosen = ops.one_hot(best, poles.shape[-1], dtype=dtype)
    return ops.sum(poles * chosen[..., None, :], axis=-1)


@functools.lru_cache(maxsize=256)
def _compiled_pole(shape: tuple[int, ...], dtype: str, objective: Objective) -> Any:
    return compiled(
        lambda matrix, pole: _value_and_gradient(matrix, pole, objective),
        (shape, dtype),
        ((shape[-2],), dtype),
    )


@functools.lru_cache(maxsize=256)
def _compiled_step(shape: tuple[int, ...], dtype: str, objective: Objective, rate: float) -> Any:
    return compiled(
        lambda matrix, pole: _stepped(matrix, pole, objective, rate),
        (shape, dtype),
        ((shape[-2],), dtype),
    )


@functools.lru_cache(maxsize=256)
def _compiled_worst(shape: tuple[int, ...], dtype: str, objective: Objective) -> Any:
    # Where the pole is worst it does not change the value at first order: it counts as fixed.
    return compiled(
        lambda matrix: _at_pole(matrix, _worst(matrix, objective), objective), (shape, dtype)
    )


def pole_energy(matrix: Any, pole: Any | None, objective: Objective) -> Any:
    """The loss of the neurons at a pole, or at the worst one; groups are averaged."""
    shape, dtype = tuple(matrix.shape), keras.backend.standardize_dtype(matrix.dtype)
    if pole is None:
        return with_gradient(_compiled_worst(shape, dtype, objective), matrix, twice=False)
    program = _compiled_pole(shape, dtype, objective)
    return with_gradient(program, matrix, pole, twice=False)


def stepped_pole(matrix: Any, pole: Any, objective: Objective, rate: float) -> Any:
    """The pole after a gradient step of this rate."""
    shape, dtype = tuple(matrix.shape), keras.backend.standardize_dtype(matrix.dtype)
    return _compiled_step(shape, dtype, objective, rate)(ops.stop_gradient(matrix), pole)
