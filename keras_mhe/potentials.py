"""The energy of a pair of neurons as a function of their cosine, softened where they meet."""

import functools
import math
import numbers
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

# Softening never starts beyond this squared distance, however few the neurons.
_WIDEST_FLOOR = 0.1
# Below this cosine the slope of the angle, infinite at -1, keeps one value.
_LOWEST_COSINE = -1.0 + 1e-4
# Sums of numbers up to e^this are finite in float64.
_LARGEST = 600


def check_potential(
    s: float, distance: str, half_space: bool, softening: float | str
) -> tuple[float, str, bool, float | str]:
    """Returns the arguments of a pair potential in plain types, or says what is wrong."""
    return (
        check_nonnegative(s, "s"),
        check_choice(distance, "distance", ("euclidean", "angular")),
        check_flag(half_space, "half_space"),
        _check_softening(softening),
    )


def check_nonnegative(value: Any, name: str) -> float:
    """Returns a finite number, zero or more, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected a number. Received: {name}={value!r}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite number, zero or more. "
            f"Received: {name}={value!r}"
        )
    return number


def check_choice(value: Any, name: str, choices: tuple[str, str]) -> str:
    """Returns one of two words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f'Invalid value for argument `{name}`. Expected "{choices[0]}" or "{choices[1]}". '
            f"Received: {name}={value!r}"
        )
    return value


def check_flag(value: Any, name: str) -> bool:
    """Returns True or False as Python's own."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected True or False. "
            f"Received: {name}={value!r}"
        )
    return bool(value)


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
            "Invalid value for argument `softening`. Expected a distance below sqrt(2), which "
            f"neurons at right angles have. Received: softening={softening!r}"
        )
    return distance


def softening_floor(softening: float | str, points: int, dimension: int, dtype: str) -> float:
    """The squared distance below which the potential is continued as a straight line."""
    # Cosines are rounded: no squared distance is known more finely than this.
    resolution = 4 * float(np.finfo(dtype).eps)
    if softening != "auto":
        return max(float(softening) ** 2, resolution)
    if dimension == 1:
        return _WIDEST_FLOOR
    # The radius of caps so small that `points` of them have together the area of the sphere:
    # sphere and ball stand for log(sigma_{d-1}) and log(kappa_{d-1}).
    half = dimension / 2
    sphere = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    ball = (half - 0.5) * math.log(math.pi) - math.lgamma(half + 0.5)
    spread = math.exp(2 / (dimension - 1) * (sphere - ball - math.log(points)))
    return max(min(_WIDEST_FLOOR, spread), resolution)


@functools.cache
def _arccosine_series(dtype: str) -> list[float]:
    """Coefficients of `arccos(x) / sqrt(1 - x)` on [0, 1], by powers of `2x - 1`."""
    # The nearest singularity, x = -1, lets each further power gain a factor of 5.8.
    degree = 20 if dtype == "float64" else 8
    nodes = np.polynomial.chebyshev.chebpts1(degree + 1)
    quotient = np.arccos((nodes + 1) / 2) / np.sqrt((1 - nodes) / 2)
    series = np.polynomial.chebyshev.chebfit(nodes, quotient, degree)
    return [float(x) for x in np.polynomial.chebyshev.cheb2poly(series)]


def _arccosine(x: Any) -> Any:
    """Arccosine on [0, 1] to the last digits: ten times the speed of XLA's on a CPU."""
    y = 2.0 * x - 1.0
    *others, result = _arccosine_series(keras.backend.standardize_dtype(x.dtype))
    for coefficient in reversed(others):
        result = result * y + coefficient
    return result * ops.sqrt(1.0 - x)


def _riesz(x: Any, power: float) -> tuple[Any, Any]:
    """`x^(-power)`, or `-log(x)` for power 0, and minus its derivative."""
    if power == 0:
        return -ops.log(x), 1.0 / x
    if power == 0.5:
        value = ops.rsqrt(x)
        return value, 0.5 * value * value * value
    if power in (1, 2):
        inverse = 1.0 / x
        value = inverse if power == 1 else inverse * inverse
        return value, power * value * inverse
    value = ops.power(x, -power)
    return value, power * value / x


@dataclass(frozen=True)
class Potential:
    """The energy of a pair of neurons as a function of their cosine.

    `f(c) = (2 - 2c)^(-s/2)`, for `s = 0` `-log(2 - 2c) / 2`; angular with `arccos(c)` in place of
    the distance `sqrt(2 - 2c)`. Below the squared distance `floor` it goes on as its tangent in
    `c`: finite and repulsive. In half space a pair stands for four points: `f(c) + f(-c)`.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.
    """

    s: float
    angular: bool
    half_space: bool
    floor: float

    @property
    def antipodal(self) -> float:
        """`f(-1)`, the energy of a neuron and its own mirror image."""
        farthest = math.pi if self.angular else 2.0
        return -math.log(farthest) if self.s == 0 else farthest**-self.s

    def shares(self, n: int) -> tuple[float, float]:
        """What the mean of all pairs of n neurons counts in their energy, and what is added to it.

        In half space it is the mean over 2n points, of which one in `2n - 1` is a mirror image of
        constant energy. A single neuron has no pairs.
        """
        if self.half_space:
            return (n - 1) / (2 * n - 1), self.antipodal / (2 * n - 1)
        return float(n > 1), 0.0

    @property
    def _lowest_cosine(self) -> float:
        """Where the angle's slope in the cosine, infinite at -1, is held."""
        if not self.half_space:
            return _LOWEST_COSINE
        # Here it is the pull of a mirror image on a neuron that meets the other: it must stay
        # below the softened push, of which this leaves it a share of at most 0.71.
        angle = math.acos(1.0 - self.floor / 2)
        share = (angle / math.pi) ** (self.s + 1) * math.sin(angle)
        return max(_LOWEST_COSINE, share**2 - 1.0)

    def __call__(self, cosine: Any) -> tuple[Any, Any]:
        """Values and slopes in the cosine, elementwise."""
        x = ops.abs(cosine)
        acute: Any = _arccosine(ops.minimum(x, 1.0)) if self.angular else None
        if not self.half_space:
            angle = ops.where(cosine < 0, math.pi - acute, acute) if self.angular else None
            return self._pair_of_points(cosine, angle)
        value, slope = self._pair_of_points(x, acute, mirrored=False)
        angle = math.pi - acute if self.angular else None
        mirrored_value, mirrored_slope = self._pair_of_points(-x, angle, mirrored=True)
        slope = slope - mirrored_slope
        return value + mirrored_value, ops.where(cosine < 0, -slope, slope)

    def _pair_of_points(self, cosine: Any, angle: Any, mirrored: bool | None = None) -> Any:
        """One pair; `mirrored` says, where known, that the cosine is not positive, or not negative.

        What is known is not computed: neurons are softened where they meet, and angles held
        where neurons are opposite.
        """
        edge, lowest = 1.0 - self.floor / 2, self._lowest_cosine
        held = cosine if mirrored else ops.minimum(cosine, edge)
        if self.angular:
            angle = angle if mirrored else ops.maximum(angle, math.acos(edge))
            value, force = _riesz(angle, self.s)
            inside = held
            if mirrored is not False:
                _, force = _riesz(ops.minimum(angle, math.acos(lowest)), self.s)
                inside = ops.maximum(held, lowest)
            slope = force * ops.rsqrt((1.0 - inside) * (1.0 + inside))
        else:
            value, force = _riesz(2.0 - 2.0 * held, self.s / 2)
            # The logarithm of the distance is half that of its square.
            value, slope = (value / 2, force) if self.s == 0 else (value, 2.0 * force)
        return value if mirrored else value + slope * (cosine - held), slope

    def values(self, cosine: np.ndarray) -> np.ndarray:
        """Values alone, elementwise and by NumPy: in float64 on every backend."""
        if self.half_space:
            return self._of_points(cosine) + self._of_points(-cosine)
        return self._of_points(cosine)

    def _of_points(self, cosine: np.ndarray) -> np.ndarray:
        edge = 1.0 - self.floor / 2
        held = np.clip(cosine, -1.0, edge)
        # A power of what the potential depends on, and minus that by the cosine at the edge.
        if self.angular:
            base, power, start = np.arccos(held), self.s, math.acos(edge)
            rate = 1 / math.sin(start)
        else:
            base, power, start, rate = 2.0 - 2.0 * held, self.s / 2, self.floor, 2.0
        if self.s == 0:
            value, slope = -np.log(base), rate / start
            if not self.angular:
                value, slope = value / 2, slope / 2
        else:
            if -(power + 1) * math.log(start) > _LARGEST:
                raise ValueError(
                    "Argument `s` is so large that the energy of neurons that meet is beyond what "
                    f"numbers hold. Received: s={self.s}"
                )
            value, slope = base**-power, power * rate * start ** (-power - 1)
        return value + slope * (cosine - held)

    def curvature(self, cosine: Any, slope: Any) -> Any:
        """The slope of the slope, elementwise, in full space: none where it is held."""
        edge = 1.0 - self.floor / 2
        if self.angular:
            inside = ops.clip(cosine, _LOWEST_COSINE, edge)
            acute = _arccosine(ops.abs(inside))
            angle = ops.where(inside < 0, math.pi - acute, acute)
            square = (1.0 - inside) * (1.0 + inside)
            rate = (self.s + 1.0) * ops.rsqrt(square) / angle + inside / square
            free = ops.logical_and(cosine < edge, cosine > _LOWEST_COSINE)
        else:
            rate = (self.s + 2.0) / (2.0 - 2.0 * ops.minimum(cosine, edge))
            free = cosine < edge
        return ops.where(free, slope * rate, 0.0)


def potential_for(
    n: int,
    dimension: int,
    s: float,
    distance: str,
    half_space: bool,
    softening: float | str,
    dtype: str = "float32",
) -> Potential:
    """The potential between neurons of which there are n, softened as suits their number."""
    s, distance, half_space, softening = check_potential(s, distance, half_space, softening)
    points = 2 * n if half_space else n
    floor = softening_floor(softening, points, dimension, dtype)
    return Potential(s, distance == "angular", half_space, floor)


def potential_of(
    matrix: Any,
    s: float,
    distance: str,
    half_space: bool,
    softening: float | str,
    dimension: int | None = None,
) -> Potential:
    """The potential between the neurons of a matrix.

    `dimension` is that of the sphere, where it is not that of the matrix.
    """
    return potential_for(
        matrix.shape[-1],
        matrix.shape[-2] if dimension is None else dimension,
        s,
        distance,
        half_space,
        softening,
        keras.backend.standardize_dtype(matrix.dtype),
    )
