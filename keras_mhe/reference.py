"""Where an energy stands: what random neurons have, and the least that there can be.

`position = (energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1 is
random, above 1 the neurons are clustered.

Examples:
    >>> from keras_mhe import reference
    >>> energy = reference.uniform_energy(100, 32, half_space=True)
    >>> round(reference.position(energy, 100, 32, half_space=True), 6)
    1.0
"""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from keras_mhe.axes import check_integer
from keras_mhe.potentials import Potential, potential_for

# Nodes of Gauss on each piece of an integral: these give all digits.
_NODES = 200
# Angles on which sums stand for integrals of what is drawn, not computed with.
_ANGLES = 20001
# Tangents and chords are compared at so many points.
_CHORDS = 4001


@functools.cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def _counts(n: int, d: int) -> tuple[int, int]:
    """Numbers of neurons and coordinates as Python's integers."""
    n = check_integer(n, "n", least=1, what="a positive number of neurons")
    return n, check_integer(d, "d", least=1, what="a positive number of coordinates")


def _over_points(mean: float, n: int, potential: Potential) -> float:
    """The energy of neurons whose pairs have this energy on average."""
    share, constant = potential.shares(n)
    return share * mean + constant


def _singular_mean(d: int, s: float) -> float:
    """The mean of `|u - v|^(-s)` over the sphere, `s < d - 1`; for `s = 0` of `-log |u - v|`."""
    if s > 0:
        logarithm = (
            (d - 2 - s) * math.log(2)
            + math.lgamma(d / 2)
            + math.lgamma((d - 1 - s) / 2)
            - math.lgamma(d - 1 - s / 2)
        )
        return math.exp(logarithm) / math.sqrt(math.pi)
    # -log 2 + (psi(d - 1) - psi((d - 1) / 2)) / 2, by psi(x + 1/2) - psi(x) as the alternating sum
    # 2/(2x) - 2/(2x + 1) + ...
    terms = 1.0 / np.arange(1, d - 1)
    terms[1::2] *= -1
    rest = (-1) ** d * (math.log(2) - float(np.sum(terms)))
    return (rest - math.log(2)) / 2


@functools.lru_cache(maxsize=1024)
def _softened_mean(d: int, potential: Potential) -> float:
    """The mean of the energy of a pair over the sphere, piece by piece of the angle's density."""
    pair = replace(potential, half_space=False).values
    if d == 1:
        return float(np.mean(pair(np.array([-1.0, 1.0]))))
    nodes, weights = _gauss()
    edge = math.acos(1 - potential.floor / 2)
    # Beyond 10 standard deviations from a right angle sin^(d - 2) is nothing.
    least = max(0.0, math.pi / 2 - 10 / math.sqrt(max(d - 2, 1)))
    angles, shares = [], []

    def piece(start: float, end: float) -> None:
        if end > start:
            angles.append((start + end) / 2 + nodes * (end - start) / 2)
            shares.append(weights * (end - start) / 2)

    piece(least, edge)
    # By the logarithm of the angle: here the energy is a power of it.
    start, end = math.log(max(least, edge)), math.log(math.pi / 2)
    near = np.exp((start + end) / 2 + nodes * (end - start) / 2)
    angles.append(near)
    shares.append(weights * (end - start) / 2 * near)
    piece(math.pi / 2, math.pi - least)
    angle, share = np.concatenate(angles), np.concatenate(shares)
    share = share * np.exp((d - 2) * np.log(np.sin(angle)))
    return float(share @ pair(np.cos(angle)) / np.sum(share))


def uniform_energy(
    n: int,
    d: int,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    softening: float | str | None = None,
) -> float:
    """The energy to expect of neurons whose directions are random, uniform and independent.

    For `0 < s < d - 1` that is `2^(d-2-s) Γ(d/2) Γ((d-1-s)/2) / (√π Γ(d-1-s/2))`, for `s = 0`
    `-log 2 + (ψ(d-1) - ψ((d-1)/2)) / 2`, whatever `n`. From `s = d - 1` on the mean of the
    singular potential is infinite: there, for angles and where `softening` is given, that of the
    softened potential is integrated over the angle's density, proportional to `sin^(d-2)`. In half
    space it is `((n-1) 2U + f(-1)) / (2n-1)`, `U` the value of the full space and `f(-1)` the
    energy of opposite points.

    Args:
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of each neuron counts too.
        softening: as in `hyperspherical_energy`, whose expectation this is for the same arguments.
            None is the singular potential wherever its mean is known in closed form, elsewhere
            `"auto"`. They differ in 5 dimensions and fewer: 1.2 % for `s = 1`, 1,000 neurons of 3.

    Returns:
        A float, without unit. Accurate to eight digits and more.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

    Source: the mean of `|u - v|^(-s)` is a Beta integral; Liu et al. (2018), NeurIPS, for the
    energy.

    Examples:
        >>> from keras_mhe.reference import uniform_energy
        >>> round(uniform_energy(1000, 3, s=1), 6)
        1.0
    """
    named = "auto" if softening is None else softening
    n, d = _counts(n, d)
    potential = potential_for(n, d, s, distance, half_space, named)
    closed = softening is None and not potential.angular and potential.s < d - 1
    mean = _singular_mean(d, potential.s) if closed else _softened_mean(d, potential)
    return _over_points(2 * mean if potential.half_space else mean, n, potential)


def _supported(function: Callable[[np.ndarray], np.ndarray], at: float, least: float) -> bool:
    """Whether a line through a growing function stays below it, so that Jensen's bound holds."""
    x = np.linspace(least, 1.0, _CHORDS)
    x = x[np.abs(x - at) > 1e-9]
    slopes = (function(x) - function(np.array(at))) / (x - at)
    before, after = slopes[x < at], slopes[x > at]
    steepest = np.max(before, initial=0.0)
    return bool(steepest <= np.min(after, initial=np.inf) * (1 + 1e-9))


@functools.lru_cache(maxsize=1024)
def _bound(n: int, d: int, potential: Potential) -> float | None:
    """See `lower_bound`."""
    if n == 1:
        return _over_points(0.0, n, potential)
    if potential.half_space:
        x, least = max(0.0, (n - d) / (d * (n - 1))), 0.0
    else:
        x, least = -1 / (n - 1), -1.0

    def pair(x: np.ndarray) -> np.ndarray:
        return potential.values(np.sqrt(x) if potential.half_space else x)

    if not _supported(pair, x, least):
        return None
    return _over_points(float(pair(np.array(x))), n, potential)


def lower_bound(
    n: int,
    d: int,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    softening: float | str = "auto",
) -> float | None:
    """An energy that no set of neurons goes below.

    Full space: `f(-1/(n-1))`, `f` the energy of a pair as a function of its cosine, as the mean
    cosine is at least `-1/(n-1)`; the simplex, `n <= d + 1`, has it. Half space: the energy if all
    squared cosines were `x = max(0, (n-d) / (d (n-1)))`, Welch's bound on their mean:
    `((n-1) (f(√x) + f(-√x)) + f(-1)) / (2n-1)`; orthonormal neurons, `n <= d`, and equiangular
    tight frames have it.

    Both are Jensen's inequality and need a line that touches `f` (half space: as a function of
    the squared cosine) there and nowhere crosses it. Euclidean energies have one. So have angular
    ones in half space; in full space from 5 neurons on with `s = 1`, from 4 on with `s = 2`, but
    not with `s = 0`, where the cross-polytope has less than `f` says. Large `softening` can take it
    away as well.

    Args:
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of each neuron counts too.
        softening: distance below which the potential goes on as a straight line, as in
            `hyperspherical_energy`.

    Returns:
        A float, without unit; None where no bound is known.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

    Source: Welch (1974), "Lower bounds on the maximum cross correlation of signals", IEEE
    Transactions on Information Theory.

    Examples:
        >>> from keras_mhe.reference import lower_bound
        >>> lower_bound(4, 3)  # the tetrahedron, whose squared distances are 8/3
        0.375
    """
    n, d = _counts(n, d)
    return _bound(n, d, potential_for(n, d, s, distance, half_space, softening))


def position(
    energy: float,
    n: int,
    d: int,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    softening: float | str = "auto",
) -> float | None:
    """Where an energy stands between the least possible and that of random neurons.

    `(energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1 is random,
    above 1 the neurons are clustered.

    Args:
        energy: that of the neurons, as `hyperspherical_energy` gives it for the same arguments.
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of each neuron counts too.
        softening: distance below which the potential goes on as a straight line, as in
            `hyperspherical_energy`.

    Returns:
        A float, without unit; None where no bound is known, and where all sets of neurons have
        the same energy.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

    Source: this package's own definition, between `lower_bound` and `uniform_energy`.

    Examples:
        >>> from keras_mhe.reference import position
        >>> position(0.375, 4, 3)
        0.0
    """
    options: Any = {"distance": distance, "half_space": half_space, "softening": softening}
    bound = lower_bound(n, d, s, **options)
    if bound is None:
        return None
    room = uniform_energy(n, d, s, **options) - bound
    # Rounding alone gives the neurons of a line, or a single one, some room.
    return (float(energy) - bound) / room if room > 1e-12 * abs(bound) else None


def nearest_angle_density(angles: Any, n: int, d: int, *, half_space: bool = False) -> np.ndarray:
    """How often, among uniform neurons, the nearest one is at some angle.

    `(n-1) p (1-F)^(n-2)`, `p` the density of the angle between two neurons, proportional to
    `sin^(d-2)`, and `F` its integral from 0: the share of the sphere that is nearer. In half space
    both are doubled, and angles go up to 90 degrees.

    Args:
        angles: array of angles in degrees, of any shape.
        n: number of neurons, at least 2.
        d: number of coordinates of a neuron, at least 2.
        half_space: whether the mirror image of a neuron counts as that neuron.

    Returns:
        A float64 array of the shape of `angles`, per degree.

    Raises:
        TypeError, ValueError: for a number of neurons or coordinates of the wrong type or below 2.

    Source: this package's own definition, the density of the smallest of `n - 1` independent
    angles.

    Examples:
        >>> from keras_mhe.reference import nearest_angle_density
        >>> float(nearest_angle_density(90.0, 2, 3).round(4))  # sin(90°) / 2 per radian
        0.0087
    """
    n = check_integer(n, "n", least=2, what="at least 2 neurons")
    d = check_integer(d, "d", least=2, what="at least 2 coordinates")
    grid = np.linspace(0.0, np.pi, _ANGLES)
    sines = np.sin(grid)
    sines[[0, -1]] = 0.0
    with np.errstate(divide="ignore"):
        density = np.exp((d - 2) * np.log(sines)) if d > 2 else np.ones_like(grid)
    steps = (density[1:] + density[:-1]) / 2 * (grid[1] - grid[0])
    total = np.sum(steps)
    nearer = np.concatenate([[0.0], np.cumsum(steps)]) / total
    sides = 2 if half_space else 1
    radians = np.radians(np.asarray(angles, "float64"))
    share = np.clip(sides * np.interp(radians, grid, nearer), 0.0, 1.0)
    here = sides * np.interp(radians, grid, density / total, left=0.0, right=0.0)
    here = np.where(radians * sides > np.pi, 0.0, here)
    return np.radians((n - 1) * here * (1 - share) ** (n - 2))
