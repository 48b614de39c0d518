"""The energy of a pair of neurons as a function of their cosine, softened at small distances."""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._arguments import check_choice, check_flag, check_nonnegative
from keras_mhe._backend import at_least, at_most
from keras_mhe._typing import Tensor

# Upper limit of epsilon for any number of neurons.
_LARGEST_EPSILON = 0.1
# Below this cosine, the slope of the angle is constant. At -1 it would be infinite.
_LOWEST_COSINE = -1.0 + 1e-4
# Sums of numbers up to exp(600) are finite in float64.
_LARGEST_EXPONENT = 600


def _check_softening(softening: float | str) -> float | str:
    if isinstance(softening, str):
        if softening == "auto":
            return softening
        raise ValueError(
            'Invalid value for argument `softening`. Expected "auto" or a distance below sqrt(2). '
            f"Received: softening={softening!r}"
        )
    distance = check_nonnegative(softening, "softening")
    if distance >= math.sqrt(2):
        raise ValueError(
            "Invalid value for argument `softening`. Expected a distance below sqrt(2), the "
            f"distance of orthogonal neurons. Received: softening={softening!r}"
        )
    return distance


def _epsilon(softening: float | str, points: int, dimension: int, dtype: str) -> float:
    """The squared distance below which the potential is continued linearly."""
    # Cosines are rounded, so smaller squared distances cannot be distinguished.
    resolution = 4 * float(np.finfo(dtype).eps)
    if softening != "auto":
        return max(float(softening) ** 2, resolution)
    if dimension == 1:
        return _LARGEST_EPSILON
    # `spread` is the squared radius of a cap whose area is that of the sphere divided by `points`.
    # `sphere` and `ball` are log(sigma_{d-1}) and log(kappa_{d-1}).
    half = dimension / 2
    sphere = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    ball = (half - 0.5) * math.log(math.pi) - math.lgamma(half + 0.5)
    spread = math.exp(2 / (dimension - 1) * (sphere - ball - math.log(points)))
    return max(min(_LARGEST_EPSILON, spread), resolution)


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


@dataclass(frozen=True)
class Potential:
    """The energy of a pair of neurons as a function of their cosine.

    `f(c) = (2 - 2c)^(-s/2)`, and `-log(2 - 2c) / 2` for `s = 0`. In the angular potential,
    `arccos(c)` replaces the distance `sqrt(2 - 2c)`. Where the squared distance is below `epsilon`,
    f is continued linearly in c, which keeps it finite and repulsive. In half space the energy of
    a pair is `f(c) + f(-c)`, because each neuron also has a mirror image.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.
    """

    s: float
    angular: bool
    half_space: bool
    epsilon: float
    # Computed from these, because a program has the numbers above as tensors.
    power: int | None = field(init=False)
    antipodal: float = field(init=False)
    edge_angle: float = field(init=False)
    lowest_gap: float = field(init=False)
    lowest_angle: float = field(init=False)

    def __post_init__(self) -> None:
        farthest = math.pi if self.angular else 2.0
        lowest = self._lowest_cosine()
        for name, value in {
            # Powers with formulas of their own, which are a part of the program.
            "power": int(self.s) if self.s in (0, 1, 2, 4) else None,
            # `f(-1)`, the energy of a neuron and its own mirror image.
            "antipodal": -math.log(farthest) if self.s == 0 else farthest**-self.s,
            "edge_angle": math.acos(1.0 - self.epsilon / 2),
            "lowest_gap": 1.0 + lowest,
            "lowest_angle": math.acos(lowest),
        }.items():
            object.__setattr__(self, name, value)

    def shares(self, n: int) -> tuple[float, Any]:
        """The weight of the mean over pairs in the energy of n neurons, and a constant to add.

        In half space the energy is the mean over 2n points. For each of them, one of the other
        `2n - 1` points is its own mirror image, with a constant energy. A single neuron has no
        pairs.
        """
        if self.half_space:
            return (n - 1) / (2 * n - 1), self.antipodal / (2 * n - 1)
        return float(n > 1), 0.0

    def energy_from_mean(self, mean: float, n: int) -> float:
        """The energy of n neurons from the mean energy of their pairs."""
        share, constant = self.shares(n)
        return share * mean + constant

    def _lowest_cosine(self) -> float:
        """The cosine below which the slope of the angle is constant. At -1 it would be infinite."""
        if not self.half_space:
            return _LOWEST_COSINE
        # When two neurons meet in half space, each of them is opposite to the other's mirror image,
        # and this slope is the force between those. It must stay weaker than the softened
        # repulsion of the two neurons: the limit keeps it below 0.71 of that.
        angle = math.acos(1.0 - self.epsilon / 2)
        share = (angle / math.pi) ** (self.s + 1) * math.sin(angle)
        return max(_LOWEST_COSINE, share**2 - 1.0)

    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Values and derivatives with respect to the cosine, elementwise."""
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
        """Values without derivatives, elementwise, by NumPy in float64 on every backend."""
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
            inside = at_most(at_least(cosine, _LOWEST_COSINE), 1.0 - nearest)
            acute = _arccosine(ops.abs(inside))
            angle = ops.where(inside < 0, math.pi - acute, acute)
            square = (1.0 - inside) * (1.0 + inside)
            rate = (self.s + 1.0) * ops.rsqrt(square) / angle + inside / square
            free = ops.logical_and(free, cosine > _LOWEST_COSINE)
        else:
            rate = (self.s / 2 + 1.0) / at_least(gap, nearest)
        return ops.where(free, slope * rate, 0.0)


@dataclass(frozen=True)
class PotentialSpec:
    """The arguments that define a potential, with checks.

    A spec, a number of neurons and a number of coordinates define a `Potential`.
    """

    s: float = 2.0
    distance: str = "euclidean"
    half_space: bool = False
    softening: float | str = "auto"

    def __post_init__(self) -> None:
        distance = check_choice(self.distance, "distance", ("euclidean", "angular"))
        for name, value in {
            "s": check_nonnegative(self.s, "s"),
            "distance": distance,
            "half_space": check_flag(self.half_space, "half_space"),
            "softening": _check_softening(self.softening),
        }.items():
            object.__setattr__(self, name, value)

    def potential(self, n: int, dimension: int, dtype: str = "float32") -> Potential:
        """The potential for n neurons with `dimension` coordinates, computed in `dtype`."""
        points = 2 * n if self.half_space else n
        epsilon = _epsilon(self.softening, points, dimension, dtype)
        return Potential(self.s, self.distance == "angular", self.half_space, epsilon)

    def of_neurons(self, matrix: Tensor, dimension: int | None = None) -> Potential:
        """The potential for a matrix of neurons, which may be projected to fewer dimensions."""
        *_, coordinates, n = matrix.shape
        dtype = keras.backend.standardize_dtype(matrix.dtype)
        return self.potential(n, coordinates if dimension is None else dimension, dtype)
