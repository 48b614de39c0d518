"""Powers and logarithms of distances and angles, softened at small distances."""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import at_least, at_most
from keras_mhe._typing import Tensor
from keras_mhe.energies._potential_base import Potential

# Where `1 + cosine` is smaller, the slope of the angle is constant. At -1 it would be infinite.
_SMALLEST_GAP = 1e-4
# Sums of numbers up to exp(600) are finite in float64.
_LARGEST_EXPONENT = 600


@functools.cache
def _arccosine_series(dtype: str) -> list[float]:
    """Coefficients of `arccos(x) / sqrt(1 - x)` on [0, 1] in powers of `2x - 1`."""
    # The nearest singularity is x = -1, so each further power reduces the error by 5.8.
    degree = 20 if dtype == "float64" else 8
    nodes = np.polynomial.chebyshev.chebpts1(degree + 1)
    quotient = np.arccos((nodes + 1) / 2) / np.sqrt((1 - nodes) / 2)
    series = np.polynomial.chebyshev.chebfit(nodes, quotient, degree)
    return [float(x) for x in np.polynomial.chebyshev.cheb2poly(series)]


def _arccosine(x: Tensor) -> Tensor:
    """Arccosine on [0, 1], exact to the last digits and ten times as fast as XLA's on a CPU."""
    y = 2.0 * x - 1.0
    *others, result = _arccosine_series(keras.backend.standardize_dtype(x.dtype))
    for coefficient in reversed(others):
        result = result * y + coefficient
    return result * ops.sqrt(1.0 - x)


def _riesz(x: Tensor, s: Any, power: int | None) -> tuple[Tensor, Tensor]:
    """`x^(-s)`, or `-log(x)` for s = 0, and minus its derivative."""
    inverse = 1.0 / x
    if power == 0:
        return -ops.log(x), inverse
    if power == 1:
        return inverse, inverse * inverse
    value = inverse * inverse if power == 2 else ops.power(x, -s)
    return value, s * value * inverse


def _riesz_of_gap(gap: Tensor, s: Any, power: int | None) -> tuple[Tensor, Tensor]:
    """`(2 gap)^(-s/2)`, or `-log(2 gap) / 2` for s = 0, and minus its derivative.

    On PyTorch every operation visits the whole tensor, so there are as few as possible.
    """
    if power == 0:
        return -0.5 * ops.log(2.0 * gap), 0.5 / gap
    if power == 1:
        value = ops.rsqrt(2.0 * gap)
        return value, value * value * value
    inverse = 1.0 / gap
    if power == 2:
        value = 0.5 * inverse
        return value, value * inverse
    value = 0.25 * inverse * inverse if power == 4 else ops.power(2.0 * gap, -s / 2)
    return value, s / 2 * value * inverse


def _angle_at(square: Any) -> Any:
    """The angle between two points at a squared distance, a number or a scalar tensor."""
    if ops.is_tensor(square):
        return 2.0 * ops.arcsin(ops.sqrt(square) / 2.0)
    return 2.0 * math.asin(math.sqrt(square) / 2.0)


@dataclass(frozen=True)
class RieszPotential(Potential):
    """The Riesz potential, a power of the distance, and the logarithmic potential.

    `f(c) = (2 - 2c)^(-s/2)`, and `-log(2 - 2c) / 2` for `s = 0`. In the angular potential,
    `arccos(c)` replaces the distance `sqrt(2 - 2c)`. Where the squared distance is below `epsilon`,
    f is continued linearly in c, which keeps it finite and repulsive.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.
    """

    s: float
    angular: bool
    half_space: bool
    epsilon: Any
    # Computed from these, because a program has the numbers above as tensors.
    power: int | None = field(init=False)
    antipodal: Any = field(init=False)
    edge_angle: Any = field(init=False)
    lowest_gap: Any = field(init=False)
    lowest_angle: Any = field(init=False)

    def __post_init__(self) -> None:
        farthest = math.pi if self.angular else 2.0
        lowest_gap = self._lowest_gap()
        for name, value in {
            # Powers with formulas of their own, which are a part of the program.
            "power": int(self.s) if self.s in (0, 1, 2, 4) else None,
            "antipodal": -math.log(farthest) if self.s == 0 else farthest**-self.s,
            "edge_angle": _angle_at(self.epsilon),
            "lowest_gap": lowest_gap,
            "lowest_angle": math.pi - _angle_at(2.0 * lowest_gap),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def cheap_slopes(self) -> bool:  # type: ignore[override]
        """Whether values and slopes share no power, logarithm or angle."""
        return not self.angular and self.power is not None

    def _lowest_gap(self) -> Any:
        """`1 + cosine` below which the slope of the angle is constant."""
        if not self.half_space:
            return _SMALLEST_GAP
        # When two neurons meet in half space, each of them is opposite to the other's mirror image,
        # and this slope is the force between those. It must stay weaker than the softened
        # repulsion of the two neurons: the limit keeps it below 0.71 of that.
        square = self.epsilon * (1.0 - self.epsilon / 4)  # of the sine of the angle
        gap = (_angle_at(self.epsilon) / math.pi) ** (2 * self.s + 2) * square
        return at_least(gap, _SMALLEST_GAP) if ops.is_tensor(gap) else max(gap, _SMALLEST_GAP)

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        x = ops.abs(cosine)
        acute: Any = _arccosine(at_most(x, 1.0)) if self.angular else None
        if not self.half_space:
            angle = ops.where(cosine < 0, math.pi - acute, acute) if self.angular else None
            return self._pair_of_points(1.0 - cosine, 1.0 + cosine, angle)
        near, far = 1.0 - x, 1.0 + x
        value, slope = self._pair_of_points(near, far, acute, mirrored=False)
        angle = math.pi - acute if self.angular else None
        mirrored_value, mirrored_slope = self._pair_of_points(far, near, angle, mirrored=True)
        return value + mirrored_value, (slope - mirrored_slope) * ops.sign(cosine)

    def _pair_of_points(
        self, gap: Tensor, opposite_gap: Tensor, angle: Tensor, mirrored: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Values and slopes for pairs of points, without their mirror images.

        `gap` is `1 - cosine`, which is exact near a cosine of 1; the cosine at the edge of the
        softening would be rounded. `opposite_gap` is `1 + cosine`, exact near -1.

        `mirrored=True` means that no cosine is positive, so the softening near 1 is left out of
        the program. `False` means that no cosine is negative, so the limit near -1 is left out.
        """
        nearest = self.epsilon / 2
        clipped = gap if mirrored else at_least(gap, nearest)
        if self.angular:
            angle = angle if mirrored else at_least(angle, self.edge_angle)
            value, force = _riesz(angle, self.s, self.power)
            near, far = clipped, 2.0 - clipped
            if mirrored is not False:
                _, force = _riesz(at_most(angle, self.lowest_angle), self.s, self.power)
                near = at_most(clipped, 2.0 - self.lowest_gap)
                far = at_most(at_least(opposite_gap, self.lowest_gap), 2.0 - nearest)
            slope = force * ops.rsqrt(near * far)
        else:
            value, slope = _riesz_of_gap(clipped, self.s, self.power)
        return value if mirrored else value + slope * (clipped - gap), slope

    def values(self, cosine: np.ndarray) -> np.ndarray:
        if self.half_space:
            return self._values_of_points(cosine) + self._values_of_points(-cosine)
        return self._values_of_points(cosine)

    def _values_of_points(self, cosine: np.ndarray) -> np.ndarray:
        edge = 1.0 - self.epsilon / 2
        clipped = np.clip(cosine, -1.0, edge)
        # The potential is a power of `base`; `rate` is minus the derivative of `base` at the edge.
        if self.angular:
            base, power, start = np.arccos(clipped), self.s, math.acos(edge)
            rate = 1 / math.sin(start)
        else:
            base, power, start, rate = 2.0 - 2.0 * clipped, self.s / 2, self.epsilon, 2.0
        if self.s == 0:
            value, slope = -np.log(base), rate / start
            if not self.angular:
                value, slope = value / 2, slope / 2
        else:
            if -(power + 1) * math.log(start) > _LARGEST_EXPONENT:
                raise ValueError(
                    "Argument `s` is too large: the energy of equal neurons exceeds the largest "
                    f"floating-point number. Received: s={self.s}"
                )
            value, slope = base**-power, power * rate * start ** (-power - 1)
        return value + slope * (cosine - clipped)

    def curvature(self, cosine: Tensor, slope: Tensor) -> Tensor:
        """The second derivative in full space, elementwise; zero where the slope is constant."""
        gap, nearest = 1.0 - cosine, self.epsilon / 2
        free = gap > nearest
        if self.angular:
            lowest = _SMALLEST_GAP - 1.0
            inside = at_most(at_least(cosine, lowest), 1.0 - nearest)
            acute = _arccosine(ops.abs(inside))
            angle = ops.where(inside < 0, math.pi - acute, acute)
            square = (1.0 - inside) * (1.0 + inside)
            rate = (self.s + 1.0) * ops.rsqrt(square) / angle + inside / square
            free = ops.logical_and(free, cosine > lowest)
        else:
            rate = (self.s / 2 + 1.0) / at_least(gap, nearest)
        return ops.where(free, slope * rate, 0.0)
