"""Minimum hyperspherical covering."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_nonnegative
from keras_mhe._backend import at_least
from keras_mhe._typing import NeuronAxis, Tensor
from keras_mhe.regularizers._poles import PoleRegularizer


@dataclass(frozen=True)
class Covering:
    """`-(1/gamma) log mean over i of exp(-gamma |v - u_i|^2)`.

    The pole v increases it, and the neurons decrease it.
    """

    gamma: float
    half_space: bool
    pole_sign, loss_sign = 1.0, 1.0

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        cosines = [cosine, -cosine] if self.half_space else [cosine]
        # Exponentials are relative to that of the nearest point, so their sum does not underflow.
        top = functools.reduce(at_least, cosines)
        top = ops.max(top, axis=-1, keepdims=True)
        shares = [ops.exp(2 * self.gamma * (c - top)) for c in cosines]
        total = ops.sum(sum(shares), axis=-1, keepdims=True)
        points = len(cosines) * cosine.shape[-1]
        value = 2.0 - 2.0 * top - (ops.log(total) - math.log(points)) / self.gamma
        slope = shares[0] - shares[1] if self.half_space else shares[0]
        return value[..., 0], -2.0 * slope / total


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHC(PoleRegularizer):
    """Minimum hyperspherical covering: brings a neuron near to every point of the sphere.

    `loss = -factor / gamma * log mean over i of exp(-gamma |v - u_i|^2)`, where `u_i` are the
    neurons on the unit sphere and v is the pole, a unit vector. This is a smooth form of the
    squared distance from the pole to the nearest neuron. The neurons decrease it. The pole
    increases it, so it moves away from the neurons. Poles are learned or searched as in `MHP`.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        gamma: positive number. The larger it is, the more the nearest neuron dominates the others.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        pole: `"learned"` or `"worst"`, as in `MHP`.
        learning_rate: size of the step of a learned pole, zero or larger.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups. All groups share a learned pole.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`, or if the pole is learned
            and there is no layer wrapper.
        NotImplementedError: if second derivatives are requested.

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
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        bounded: bool = True,
    ) -> None:
        super().__init__(factor, half_space, pole, learning_rate, neuron_axis, groups, bounded)
        self.gamma = check_nonnegative(gamma, "gamma")
        if not self.gamma:
            raise ValueError(
                "Invalid value for argument `gamma`. Expected a positive number. "
                f"Received: gamma={gamma!r}"
            )

    def objective(self, matrix: Tensor) -> Covering:
        return Covering(self.gamma, self.half_space)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
