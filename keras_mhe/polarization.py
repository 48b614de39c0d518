"""Uniformity against a pole: polarization and covering."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mhe.poles import Covering, Objective, Polarization, pole_energy, stepped_pole
from keras_mhe.potentials import (
    check_choice,
    check_flag,
    check_nonnegative,
    check_potential,
    potential_of,
)
from keras_mhe.regularizers import HypersphericalRegularizer


class _PoleRegularizer(HypersphericalRegularizer):
    """Base of the two: a pole that learns, or is found anew for each kernel."""

    def __init__(
        self,
        factor: float,
        half_space: bool,
        pole: str,
        learning_rate: float,
        neuron_axis: int | Sequence[int] | None,
        groups: int | None,
    ) -> None:
        super().__init__(factor, neuron_axis, groups)
        self.half_space = check_flag(half_space, "half_space")
        self.pole = check_choice(pole, "pole", ("learned", "worst"))
        self.learning_rate = check_nonnegative(learning_rate, "learning_rate")

    def objective(self, matrix: Any) -> Objective:
        """What the pole moves in."""
        raise NotImplementedError

    @property
    def learner(self) -> str | None:
        return f"keras_mhe.{type(self).__name__}()" if self.pole == "learned" else None

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {"pole": (dimension,)} if self.pole == "learned" else {}

    def advanced(self, matrix: Any, state: dict[str, Any]) -> dict[str, Any]:
        if not state:
            return state
        objective = self.objective(matrix)
        return {"pole": stepped_pole(matrix, state["pole"], objective, self.learning_rate)}

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        return pole_energy(matrix, state.get("pole"), self.objective(matrix))

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "pole": self.pole,
            "learning_rate": self.learning_rate,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
        }


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHP(_PoleRegularizer):
    """Maximum hyperspherical polarization: leaves no point of the sphere far from all neurons.

    `loss = -factor * mean over i of |v - u_i|^(-s)`, `u_i` the neurons on the unit sphere and v the
    pole, a unit vector that flees them: it follows the gradient down the same mean.

    A learned pole, the papers', is kept by the layer wrapper and takes one step of size
    `learning_rate` in each training step. It lags behind the neurons, which crowd where it was.
    `pole="worst"` finds the worst point of the sphere for the neurons as they are, by steps from
    several starts, and needs no wrapper.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight in the loss, zero or more. The papers use 1 in hidden layers and 10 in the
            output layer.
        s: power of the potential, zero or more; 0 is the logarithm.
        half_space: also count the mirror images of the neurons.
        pole: `"learned"`, or `"worst"`.
        learning_rate: size of the step of a learned pole, zero or more.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons, as in `MHE`; `None` is 1. The loss is
            the mean over groups, which share a learned pole.
        softening: distance below which the potential goes on as a straight line, as in `MHE`.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit, and for a pole that learns.
        NotImplementedError: for second derivatives.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MHP, HypersphericalRegularization
        >>> layer = HypersphericalRegularization(keras.layers.Dense(10), MHP(10.0))
        >>> layer.build((None, 32))
        >>> tuple(layer.state["pole"].shape)
        (32,)
        >>> bare = keras.layers.Dense(10, kernel_regularizer=MHP(10.0, pole="worst"))
    """

    def __init__(
        self,
        factor: float = 1.0,
        s: float = 2.0,
        *,
        half_space: bool = False,
        pole: str = "learned",
        learning_rate: float = 0.1,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
        softening: float | str = "auto",
    ) -> None:
        super().__init__(factor, half_space, pole, learning_rate, neuron_axis, groups)
        self.s, _, _, self.softening = check_potential(s, "euclidean", half_space, softening)

    def objective(self, matrix: Any) -> Objective:
        potential = potential_of(matrix, self.s, "euclidean", self.half_space, self.softening)
        return Polarization(potential)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "s": self.s, "softening": self.softening}


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHC(_PoleRegularizer):
    """Minimum hyperspherical covering: brings a neuron near to every point of the sphere.

    `loss = -factor / gamma * log mean over i of exp(-gamma |v - u_i|^2)`, a smooth form of the
    squared distance from v to the nearest of the neurons `u_i` on the unit sphere. The pole v is a
    unit vector that flees them: it follows the gradient up the same loss.

    Learned and worst poles are as in `MHP`.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight in the loss, zero or more. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        gamma: how much the nearest neuron counts before the others, a positive number.
        half_space: also count the mirror images of the neurons.
        pole: `"learned"`, or `"worst"`, as in `MHP`.
        learning_rate: size of the step of a learned pole, zero or more.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons, as in `MHE`; `None` is 1. The loss is
            the mean over groups, which share a learned pole.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit, and for a pole that learns.
        NotImplementedError: for second derivatives.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MHC
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MHC(0.1, pole="worst"))
    """

    def __init__(
        self,
        factor: float = 0.01,
        gamma: float = 10.0,
        *,
        half_space: bool = False,
        pole: str = "learned",
        learning_rate: float = 0.1,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
    ) -> None:
        super().__init__(factor, half_space, pole, learning_rate, neuron_axis, groups)
        self.gamma = check_nonnegative(gamma, "gamma")
        if not self.gamma:
            raise ValueError(
                "Invalid value for argument `gamma`. Expected a positive number. "
                f"Received: gamma={gamma!r}"
            )

    def objective(self, matrix: Any) -> Objective:
        return Covering(self.gamma, self.half_space)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
