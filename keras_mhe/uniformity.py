"""Hyperspherical uniformity by other measures than energy: separation, sums, determinants."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mhe.determinant import gram_energy
from keras_mhe.potentials import check_flag
from keras_mhe.regularizers import HypersphericalRegularizer
from keras_mhe.separation import separation


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHS(HypersphericalRegularizer):
    """Maximum hyperspherical separation: pushes the two closest neurons apart.

    `loss = -factor * min over i != j of |u_i - u_j|^2`, `u_i` the neurons on the unit sphere. Only
    the closest pair (one of them, where several are as close) has a gradient at a time.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight in the loss, zero or more. The papers use 0.1 in hidden layers and 1 in the
            output layer.
        half_space: also count the mirror images of the neurons.
        every: an extension, not in the paper: minus the mean over neurons of the distance (not
            squared) to the nearest other, with a gradient for all of them.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons, as in `MHE`; `None` is 1. The loss is
            the mean over groups.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit `neuron_axis` or `groups`.
        NotImplementedError: for second derivatives.

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
        every: bool = False,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
    ) -> None:
        super().__init__(factor, neuron_axis, groups)
        self.half_space = check_flag(half_space, "half_space")
        self.every = check_flag(every, "every")

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        return separation(matrix, self.half_space, self.every)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "every": self.every,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
        }


@keras.saving.register_keras_serializable(package="keras_mhe")
class RMHP(HypersphericalRegularizer):
    """Relaxed maximum hyperspherical polarization: balances the neurons about the origin.

    `loss = factor * |w_1 + ... + w_N|` of the neurons as they are, not of their directions. It says
    nothing of how they spread: two clusters that face each other are as good as any balance. In
    half space it would be zero.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight in the loss, zero or more. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons, as in `MHE`; `None` is 1. The loss is
            the mean over groups.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit `neuron_axis` or `groups`.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import RMHP
        >>> layer = keras.layers.Dense(10, kernel_regularizer=RMHP(0.1))
    """

    def __init__(
        self,
        factor: float = 0.01,
        *,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
    ) -> None:
        super().__init__(factor, neuron_axis, groups)

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        total = ops.sum(matrix, axis=-1)
        # Scaled, so that squares neither overflow nor vanish; a sum of zero has gradient zero.
        scale = ops.stop_gradient(ops.max(ops.abs(total), axis=-1, keepdims=True))
        zero = scale == 0.0
        scale = ops.where(zero, 1.0, scale)
        square = ops.sum(ops.square(total / scale), axis=-1, keepdims=True)
        length = ops.where(zero, 0.0, scale * ops.sqrt(ops.where(zero, 1.0, square)))
        return ops.sum(length / length.shape[0])

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "neuron_axis": self.neuron_axis, "groups": self.groups}


@keras.saving.register_keras_serializable(package="keras_mhe")
class MGD(HypersphericalRegularizer):
    """Maximum Gram determinant: spreads the neurons by the volume that they span.

    `loss = -factor * logdet(K + 1e-6 I)`, `K_ij = exp(-|u_i - u_j|^2)`, `u_i` the neurons on the
    unit sphere. Time N^3, memory N^2: for layers of up to some 1,000 neurons.

    Where many neurons crowd into few dimensions the determinant is smaller than float32 can tell
    from zero. There 1e-6 is raised by factors of ten until every pivot of the factorisation exceeds
    5e-5 (float64: 5e-7): value and gradient are finite always, and exact where the smallest
    eigenvalue of K exceeds 1e-4.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight in the loss, zero or more. The papers use 0.01 in hidden layers and 0.1 in
            the output layer.
        half_space: also count the mirror images of the neurons.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons, as in `MHE`; `None` is 1. The loss is
            the mean over groups.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit `neuron_axis` or `groups`.
        NotImplementedError: for second derivatives.

    Source: Liu et al. (2021), "Learning with Hyperspherical Uniformity", AISTATS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MGD
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MGD(0.1))
    """

    def __init__(
        self,
        factor: float = 0.01,
        *,
        half_space: bool = False,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
    ) -> None:
        super().__init__(factor, neuron_axis, groups)
        self.half_space = check_flag(half_space, "half_space")

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        return gram_energy(matrix, self.half_space)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "half_space": self.half_space,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
        }
