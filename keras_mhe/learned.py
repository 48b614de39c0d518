"""The projections of compressive MHE that learn, kept by the layer wrapper."""

import abc
import functools
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled
from keras_mhe.energy import energy_of, with_gradient
from keras_mhe.inner import (
    CosineDistance,
    FullSpaceEnergy,
    Objective,
    projected_value_and_gradient,
    stepped,
    value_and_gradient_after_step,
)
from keras_mhe.potentials import Potential, check_flag, check_nonnegative, potential_of
from keras_mhe.projections import Projection, dtype_of


@functools.lru_cache(maxsize=256)
def _compiled_steps(
    shape: tuple[int, ...], dtype: str, projection: "LearnedProjection", objective: Objective
) -> Any:
    rate, steps = projection.learning_rate, projection.steps
    return compiled(
        lambda matrix, state: stepped(matrix, state, objective, rate, steps),
        (shape, dtype),
        ((projection.dim, shape[-2]), dtype),
    )


@functools.lru_cache(maxsize=256)
def _compiled_learned(
    shape: tuple[int, ...],
    dtype: str,
    projection: "LearnedProjection",
    objective: Objective,
    potential: Potential,
) -> Any:
    def after_step(matrix: Any, state: Any) -> tuple[Any, Any]:
        rate = projection.learning_rate
        return value_and_gradient_after_step(matrix, state, objective, rate, potential)

    def as_it_is(matrix: Any, state: Any) -> tuple[Any, Any]:
        return projected_value_and_gradient(matrix, state[None], potential)

    return compiled(
        after_step if projection.unroll else as_it_is,
        (shape, dtype),
        ((projection.dim, shape[-2]), dtype),
    )


@dataclass(frozen=True)
class LearnedProjection(Projection):
    """Base of the projections that follow gradient steps, from entries `N(0, 1)`."""

    dim: int = 30
    learning_rate: float = 0.1
    steps: int = 1
    unroll: bool = True

    def __post_init__(self) -> None:
        self._set_integer("dim")
        self._set_integer("steps")
        rate = check_nonnegative(self.learning_rate, "learning_rate")
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "unroll", check_flag(self.unroll, "unroll"))

    @abc.abstractmethod
    def objective(self, matrix: Any, **pair: Any) -> Objective:
        """What the steps lower or raise."""

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {} if dimension <= self.dim else {"projection": (self.dim, dimension)}

    def advanced(self, matrix: Any, state: dict[str, Any], **pair: Any) -> dict[str, Any]:
        if not state:
            return state
        objective = self.objective(matrix, **pair)
        program = _compiled_steps(tuple(matrix.shape), dtype_of(matrix), self, objective)
        return {"projection": program(ops.stop_gradient(matrix), state["projection"])}

    def energy(self, matrix: Any, state: dict[str, Any], **pair: Any) -> Any:
        if matrix.shape[-2] <= self.dim:
            return energy_of(matrix, potential_of(matrix, **pair))
        program = _compiled_learned(
            tuple(matrix.shape),
            dtype_of(matrix),
            self,
            self.objective(matrix, **pair),
            potential_of(matrix, **pair, dimension=self.dim),
        )
        return with_gradient(program, matrix, state["projection"], twice=False)


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class AngleProjection(LearnedProjection):
    """The projection of compressive MHE that learns to keep angles.

    `E(P'W)` with `P' = P - learning_rate * dL/dP`, `L = |cos(PW) - cos(W)|_F`, where `cos` is the
    matrix of cosines between neurons. In every training step P, kept by the layer wrapper, takes
    `steps` such steps, and the loss adds the one above, through which its gradient passes. P is of
    shape `(dim, d)`, W of `(d, N)`.

    Args:
        dim: dimensions of the projected neurons. Neurons of no more coordinates are not projected.
        learning_rate: size of a step, zero or more; that of the network plays no part.
        steps: steps that P takes in a training step. Where the kernel has not moved since the last
            one (gradients accumulate, the learning rate is zero) it takes none.
        unroll: False takes the energy at P itself.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

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

    def objective(self, matrix: Any, **pair: Any) -> Objective:
        return CosineDistance()


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class AdversarialProjection(LearnedProjection):
    """The projection of compressive MHE that learns to crowd the neurons.

    `E(P'W)` with `P' = P + learning_rate * dL/dP`, L the energy of PW in full space. In every
    training step P, kept by the layer wrapper, takes `steps` such steps, and the loss adds the
    one above, through which its gradient passes. P is of shape `(dim, d)`, W of `(d, N)`.

    Args:
        dim: dimensions of the projected neurons. Neurons of no more coordinates are not projected.
        learning_rate: size of a step, zero or more; that of the network plays no part.
        steps: steps that P takes in a training step, as in `AngleProjection`, but 10 by default.
        unroll: False takes the energy at P itself.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> import keras
        >>> from keras_mhe import AdversarialProjection, CoMHE, HypersphericalRegularization
        >>> regularizer = CoMHE(projection=AdversarialProjection(steps=3))
        >>> layer = HypersphericalRegularization(keras.layers.Conv2D(64, 3), regularizer)
    """

    steps: int = 10

    def objective(self, matrix: Any, **pair: Any) -> Objective:
        pair["half_space"] = False
        return FullSpaceEnergy(potential_of(matrix, **pair, dimension=self.dim))
