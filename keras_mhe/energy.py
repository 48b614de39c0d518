"""Pair potentials, their softening, and the hyperspherical energy with its gradient."""

import functools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import compiled
from keras_mhe.axes import neuron_matrix

# Softening never starts beyond this squared distance, however few the neurons.
_WIDEST_FLOOR = 0.1
# Below this cosine the slope of the angle, infinite at -1, keeps one value.
_LOWEST_COSINE = -1.0 + 1e-4
# Neurons shorter than this share of the root mean square norm get no larger a gradient.
_NORM_FLOOR = 0.01


def check_potential(
    s: float, distance: str, half_space: bool, softening: float | str
) -> tuple[float, str, bool, float | str]:
    """Returns the arguments of a pair potential in plain types, or says what is wrong."""
    return (
        check_nonnegative(s, "s"),
        _check_distance(distance),
        _check_flag(half_space, "half_space"),
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


def _check_distance(distance: str) -> str:
    if not isinstance(distance, str) or distance not in ("euclidean", "angular"):
        raise ValueError(
            'Invalid value for argument `distance`. Expected "euclidean" or "angular". '
            f"Received: distance={distance!r}"
        )
    return distance


def _check_flag(value: bool, name: str) -> bool:
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


def _softening_floor(softening: float | str, points: int, dimension: int, dtype: str) -> float:
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
    if power == 1:
        value = 1.0 / x
        return value, value * value
    value = ops.power(x, -power)
    return value, power * value / x


@dataclass(frozen=True)
class Potential:
    """The energy of a pair of neurons as a function of their cosine.

    `f(c) = (2 - 2c)^(-s/2)`, for `s = 0` `-log(2 - 2c) / 2`; angular with `arccos(c)` in place of
    the distance `sqrt(2 - 2c)`. Below the squared distance `floor` it goes on as its tangent in
    `c`: finite and repulsive. In half space a pair stands for four points: `f(c) + f(-c)`.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", sections 3.1-3.3.
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
        acute = _arccosine(ops.minimum(x, 1.0)) if self.angular else None
        if not self.half_space:
            return self._pair_of_points(cosine, acute)
        value, slope = self._pair_of_points(x, acute)
        mirrored_value, mirrored_slope = self._pair_of_points(-x, acute)
        slope = slope - mirrored_slope
        return value + mirrored_value, ops.where(cosine < 0, -slope, slope)

    def _pair_of_points(self, cosine: Any, acute: Any) -> tuple[Any, Any]:
        edge, lowest = 1.0 - self.floor / 2, self._lowest_cosine
        held = ops.minimum(cosine, edge)
        if self.angular:
            angle = ops.maximum(ops.where(cosine < 0, math.pi - acute, acute), math.acos(edge))
            value, _ = _riesz(angle, self.s)
            _, force = _riesz(ops.minimum(angle, math.acos(lowest)), self.s)
            inside = ops.maximum(held, lowest)
            slope = force / ops.sqrt((1.0 - inside) * (1.0 + inside))
        else:
            value, force = _riesz(2.0 - 2.0 * held, self.s / 2)
            # The logarithm of the distance is half that of its square.
            value, slope = (value / 2, force) if self.s == 0 else (value, 2.0 * force)
        return value + slope * (cosine - held), slope


def _unit_neurons(matrix: Any) -> tuple[Any, Any]:
    """The neurons on the sphere, and the reciprocal norms that scale their gradient.

    Both are finite whatever the norms, and zero for a neuron of norm zero.
    """
    limits = np.finfo(keras.backend.standardize_dtype(matrix.dtype))
    # Scales whose reciprocals are normal numbers: XLA multiplies by these and flushes others.
    tiny, huge = float(limits.tiny), float(limits.max) / 8
    largest = ops.max(ops.abs(matrix), axis=-2, keepdims=True)
    scale = ops.where(largest < tiny, 1.0, ops.minimum(largest, huge))
    # Entries near 1, so that their squares neither overflow nor vanish.
    matrix = matrix / scale
    square = ops.sum(ops.square(matrix), axis=-2, keepdims=True)
    # Told by the sum, in which a NaN shows: XLA's maximum of nothing but NaN is -inf.
    zero = square == 0.0
    norm = ops.sqrt(ops.where(zero, 1.0, square))
    unit = matrix / norm

    # A floor under the norms keeps a short neuron from being thrown far by one step.
    top = ops.clip(ops.max(largest), tiny, huge)
    norm = ops.where(zero, 0.0, norm) * (scale / top)
    # Not `ops.mean`, which rounds float64 to float32 on JAX.
    mean_square = ops.sum(ops.square(norm) / math.prod(norm.shape))
    floor = _NORM_FLOOR * ops.sqrt(ops.maximum(mean_square, tiny))
    reciprocal = 1.0 / ops.maximum(ops.maximum(norm, floor) * top, tiny)
    return unit, ops.where(zero, 0.0, reciprocal)


def value_and_gradient(matrix: Any, potential: Potential) -> tuple[Any, Any]:
    """The energy of a matrix of neurons, and its gradient.

    `G_i = r_i (I - u_i u_i^T) sum_j D_ij u_j`, with `u_i` the unit neurons, `r_i` their reciprocal
    norms and `D_ij` the slope of the energy in the cosine of neurons i and j: two products of
    `2 N^2 d` operations. Half space folds into `D`, the mirrored points are never built.

    Args:
        matrix: tensor of shape `(d, N)` or `(groups, d, N)`.
        potential: energy of a pair.

    Returns:
        A scalar, the mean over groups, and a tensor shaped like `matrix`.
    """
    n = matrix.shape[-1]
    unit, reciprocal = _unit_neurons(matrix)
    value, slope = potential(ops.matmul(ops.swapaxes(unit, -1, -2), unit))
    index = ops.arange(n)
    distinct = index[:, None] != index[None, :]
    # Row sums, divided before they are added: one float32 sum of N^2 terms loses four digits,
    # and XLA would make it out of two sums with nothing between them.
    rows = ops.sum(ops.where(distinct, value, 0.0), axis=-1)
    if potential.half_space:
        rows, others = rows + potential.antipodal, 2 * n - 1
    else:
        others = max(n - 1, 1)
    pull = ops.matmul(unit, ops.where(distinct, slope, 0.0))
    tangent = pull - unit * ops.sum(unit * pull, axis=-2, keepdims=True)
    weight = 1.0 / (math.prod(rows.shape) * others)
    # Both orders of a pair move its neurons.
    return ops.sum(rows * weight), tangent * (reciprocal * (2.0 * weight))


@functools.lru_cache(maxsize=256)
def _compiled_energy(shape: tuple[int, ...], dtype: str, potential: Potential) -> Any:
    return compiled(lambda matrix: value_and_gradient(matrix, potential), shape, dtype)


def _energy(matrix: Any, potential: Potential) -> Any:
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_energy(tuple(matrix.shape), dtype, potential)

    @ops.custom_gradient
    def energy(matrix: Any) -> Any:
        value, gradient = program(matrix)

        def pull_back(*args: Any, upstream: Any = None) -> Any:
            # PyTorch passes the inputs first and names the upstream gradient.
            return gradient * (args[0] if upstream is None else upstream)

        return value, pull_back

    return energy(matrix)


def hyperspherical_energy(
    kernel: Any,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    neuron_axis: int | Sequence[int] | None = None,
    groups: int | None = None,
    softening: float | str = "auto",
) -> Any:
    """Riesz s-energy of the neurons of a kernel, projected onto the unit sphere.

    `E = mean over i != j of |u_i - u_j|^(-s)`, `u_i = w_i / |w_i|`; for `s = 0`, the mean of
    `-log |u_i - u_j|`. With `distance="angular"` the angle `arccos(u_i . u_j)` in radians stands
    in place of the distance. In half space the mean is over the 2N points `u_i` and `-u_i`, the
    pairs `(u_i, -u_i)` included, so that neurons on one line repel as well.

    The gradient is analytic and takes, with the value, two matrix products. It is orthogonal to
    every neuron. Neurons of norm zero have cosine 0 to all others and gradient 0; a single neuron
    has energy 0 (half space: that of its own pair) and gradient 0.

    Args:
        kernel: floating-point tensor or variable with at least two axes. Computed in float32,
            float64 for a float64 kernel.
        s: power of the potential, zero or more; 0 is the logarithm. In float32 a potential whose
            steepest slope (`s * floor^(-s/2 - 1)`) exceeds 1e38 overflows.
        distance: `"euclidean"` or `"angular"`.
        half_space: also count the mirror image of each neuron.
        neuron_axis: the axis or axes of the kernel that index its neurons; the others are
            coordinates. `None` is the last axis, as in Dense and Conv.
        groups: number of equal, contiguous groups of neurons which compete only among
            themselves, as in grouped convolutions. The energy is the mean over groups.
        softening: Euclidean distance below which the potential goes on as a straight line in the
            cosine, so that forces stay finite. `"auto"` depends on how crowded the sphere is and
            is never more than 0.32; 0 asks for the singular potential, down to the distance that
            rounding still resolves. The slope of angles near 180 degrees, infinite in the cosine,
            is held as well: only there the gradient is not the derivative of the value.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: for an integer kernel or an argument of the wrong type.
        ValueError: for an argument out of range, a kernel with fewer than two axes, an axis that
            the kernel lacks or `groups` that do not divide the number of neurons.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Example:

    >>> import numpy as np
    >>> from keras_mhe import hyperspherical_energy
    >>> square = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]], "float32")
    >>> round(float(hyperspherical_energy(square)), 4)  # (1/2 + 1/2 + 1/4) / 3
    0.4167
    """
    s, distance, half_space, softening = check_potential(s, distance, half_space, softening)
    matrix = neuron_matrix(kernel, neuron_axis, groups)
    dimension, n = matrix.shape[-2:]
    floor = _softening_floor(
        softening,
        points=2 * n if half_space else n,
        dimension=dimension,
        dtype=keras.backend.standardize_dtype(matrix.dtype),
    )
    return _energy(matrix, Potential(s, distance == "angular", half_space, floor))
