"""The Gaussian potential, whose energy is the logarithm of a mean."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mhe._arguments import check_nonnegative
from keras_mhe._typing import Tensor
from keras_mhe.energies._potential_base import Potential

# Cosines have errors of 6e-8 in float32, so energies have errors of 1e-5 at this rate.
_LARGEST_T = 100.0
# Up to this t, float32 resolves the smallest mean, `exp(-4 t)`, and its reciprocal.
_LARGEST_T_IN_RANGE = 15.0


def check_t(t: Any) -> float:
    """Returns the rate of a Gaussian; None means 2."""
    number = 2.0 if t is None else check_nonnegative(t, "t")
    if not 0 < number <= _LARGEST_T:
        raise ValueError(
            "Invalid value for argument `t`. Expected a positive number of at most "
            f"{_LARGEST_T:.0f}. Received: t={t!r}"
        )
    return number


@dataclass(frozen=True)
class GaussianPotential(Potential):
    """The Gaussian potential `f(c) = exp(-t |u - v|^2) = exp(-2 t (1 - c))`.

    The energy is the logarithm of the mean over points. Values are multiplied by `exp(-shift)`, so
    that their mean does not underflow, and the energy contains the shift again.

    Source: Wang and Isola (2020), "Understanding contrastive representation learning through
    alignment and uniformity on the hypersphere", ICML.
    """

    t: float
    half_space: bool
    may_underflow: bool
    shift: Any = 0.0

    @classmethod
    def of(cls, t: float, half_space: bool) -> "GaussianPotential":
        """The potential for a number t, which a program has as a tensor."""
        return cls(t, half_space, t > _LARGEST_T_IN_RANGE)

    @property
    def antipodal(self) -> Any:
        exponent = -4.0 * self.t - self.shift
        return ops.exp(exponent) if ops.is_tensor(exponent) else math.exp(exponent)

    def relative_to(self, cosine: Tensor) -> "GaussianPotential":
        """The same potential with values relative to the value of a pair, which is not mirrored."""
        return dataclasses.replace(self, shift=2.0 * self.t * (cosine - 1.0))

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        rate = 2.0 * self.t
        value = ops.exp(rate * (cosine - 1.0) - self.shift)
        if not self.half_space:
            return value, rate * value
        mirrored = ops.exp(-rate * (cosine + 1.0) - self.shift)
        return value + mirrored, rate * (value - mirrored)

    def values(self, cosine: np.ndarray) -> np.ndarray:
        value = np.exp(2.0 * self.t * (cosine - 1.0))
        return value + np.exp(-2.0 * self.t * (cosine + 1.0)) if self.half_space else value

    def energy_and_rate(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        # Without pairs, the mean is zero, and so are energy and gradient. NaN stays NaN.
        empty = mean == 0.0
        mean = ops.where(empty, 1.0, mean)
        energy = ops.where(empty, 0.0, ops.log(mean) + self.shift)
        return energy, ops.where(empty, 0.0, 1.0 / mean)

    def energy_from_mean(self, mean: float, n: int) -> float:
        mean_over_points = super().energy_from_mean(mean, n)
        return math.log(mean_over_points) if mean_over_points else 0.0
