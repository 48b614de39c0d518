"""Maximum hyperspherical polarization, and its relaxed form."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._typing import NeuronAxis, State, Tensor
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.regularizers._base import HypersphericalRegularizer
from keras_mhe.regularizers._poles import PoleRegularizer


@dataclass(frozen=True)
class Polarization:
    """`mean over i of |v - u_i|^(-s)`. The pole v decreases it, and the neurons increase it."""

    potential: Potential
    pole_sign, loss_sign = -1.0, -1.0

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        points = cosine.shape[-1] * (2 if self.potential.half_space else 1)
        value, slope = self.potential(cosine)
        return ops.sum(value / points, axis=-1), slope / points


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHP(PoleRegularizer):
    """Maximum hyperspherical polarization: leaves no point of the sphere far from all neurons.

    `loss = -factor * mean over i of |v - u_i|^(-s)`, where `u_i` are the neurons on the unit sphere
    and v is the pole, a unit vector. The neurons increase the mean. The pole decreases it, so it
    moves away from the neurons.

    The papers use a learned pole. The layer wrapper stores it, and it takes one gradient step of
    size `learning_rate` in each training step. It lags behind the neurons, which cluster near its
    earlier positions. `pole="worst"` searches for the worst point of the sphere for the current
    neurons, with steps from several starting points. It needs no wrapper.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 1 in hidden layers and 10 in the
            output layer.
        s: power of the potential, zero or larger; 0 means the logarithm.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        pole: `"learned"` or `"worst"`.
        learning_rate: size of the step of a learned pole, zero or larger.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups. All groups share a learned pole.
        softening: distance below which the potential is continued linearly, as in `MHE`.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`, or if the pole is learned
            and there is no layer wrapper.
        NotImplementedError: if second derivatives are requested.

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
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        softening: float | str = "auto",
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, half_space, pole, learning_rate, neuron_axis, groups, bounded)
        self.spec = PotentialSpec(s, half_space=self.half_space, softening=softening)

    @property
    def s(self) -> float:
        """Power of the potential."""
        return self.spec.s

    @property
    def softening(self) -> float | str:
        """Distance below which the potential is continued linearly, or `"auto"`."""
        return self.spec.softening

    def objective(self, matrix: Tensor) -> Polarization:
        return Polarization(self.spec.of_neurons(matrix))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "s": self.s, "softening": self.softening}


def _imbalance_and_gradient(matrix: Tensor) -> tuple[Tensor, Tensor, None]:
    share = 1.0 / math.prod(matrix.shape[:-2])
    total = ops.sum(matrix, axis=-1, keepdims=True)
    # The scale prevents overflow and underflow of squares. A sum of zero has gradient zero.
    scale = ops.max(ops.abs(total), axis=-2, keepdims=True)
    zero = scale == 0.0
    total = total / ops.where(zero, 1.0, scale)
    square = ops.sum(ops.square(total), axis=-2, keepdims=True)
    length = ops.sqrt(ops.where(zero, 1.0, square))
    value = ops.sum(ops.where(zero, 0.0, scale * length) * share)
    gradient = ops.where(zero, 0.0, total / length) * share
    return value, ops.broadcast_to(gradient, matrix.shape), None


@keras.saving.register_keras_serializable(package="keras_mhe")
class RMHP(HypersphericalRegularizer):
    """Relaxed maximum hyperspherical polarization: balances the neurons about the origin.

    `loss = factor * |w_1 + ... + w_N|`, where `w_i` are the neurons themselves, not their
    directions. The loss does not measure how neurons spread: two opposite clusters are as good as
    any other balanced arrangement. There is no half-space form, because it would always be zero.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import RMHP
        >>> layer = keras.layers.Dense(10, kernel_regularizer=RMHP(0.1))
    """

    needs_directions = False

    def __init__(
        self,
        factor: float = 0.01,
        *,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        return EnergyProgram(_imbalance_and_gradient, twice_differentiable=True)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "bounded": self.bounded,
        }
