"""The energy of random neurons, lower bounds, and positions of energies between the two."""

import functools
import math
from collections.abc import Callable

import numpy as np

from keras_mhe._arguments import check_integer
from keras_mhe.energies._gaussian import GaussianPotential
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._riesz import RieszPotential
from keras_mhe.reference._integrals import gaussian_mean, softened_mean

# From this argument on, asymptotic series give all digits.
_SERIES_FROM = 20.0
# Points at which Jensen's inequality is checked.
_POINTS = 4001


def check_counts(n: int, d: int, least: int = 1) -> tuple[int, int]:
    """Returns the numbers of neurons and coordinates as Python integers."""
    amount = "a positive number of" if least == 1 else f"at least {least}"
    n = check_integer(n, "n", least=least, expected=f"{amount} neurons")
    return n, check_integer(d, "d", least=least, expected=f"{amount} coordinates")


def _stirling_error(z: float) -> float:
    """`log Γ(z)` minus Stirling's formula `(z - 1/2) log z - z + log(2π) / 2`."""
    if z < _SERIES_FROM:
        return math.lgamma(z) - ((z - 0.5) * math.log(z) - z + math.log(2 * math.pi) / 2)
    r = 1 / (z * z)
    return (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / z


def _digamma_difference(b: float) -> float:
    """`ψ(2b) - ψ(b)`, where 2b is an integer."""
    if b < _SERIES_FROM:
        # It is log 2 plus the alternating sum 1/(2b) - 1/(2b + 1) + ...
        count = round(2 * b)
        terms = 1.0 / np.arange(1, count)
        terms[1::2] *= -1
        return math.log(2) - (-1) ** count * (math.log(2) - float(np.sum(terms)))
    r = 1 / (b * b)
    powers = r * (1 / 16 - r * (1 / 128 - r * (1 / 256 - r * 17 / 4096)))
    return math.log(2) + 1 / (4 * b) + powers


def _singular_mean(d: int, s: float) -> float:
    """The mean of `|u - v|^(-s)` over the sphere for s < d - 1, or of `-log |u - v|` for s = 0."""
    b, h = (d - 1) / 2, s / 2
    if s == 0:
        return _digamma_difference(b) / 2 - math.log(2)
    # log(2^(-s) B(b - h, b) / B(b, b)) by Stirling's formula, whose large terms cancel exactly.
    rest = (d - 1 - s) / 2
    log_share = math.log(rest / b) if s > b else math.log1p(-h / b)
    logarithm = (rest - 0.5) * log_share - (rest + b - 0.5) * math.log1p(-h / (2 * b))
    errors = [_stirling_error(z) for z in (rest, b, 2 * b, rest + b)]
    return math.exp(logarithm - h * math.log(2) + errors[0] - errors[1] + errors[2] - errors[3])


def _mean_of_pairs(d: int, potential: RieszPotential | GaussianPotential, singular: bool) -> float:
    """The mean energy of a pair over the sphere, with mirror images in half space."""
    if d == 1:
        return float(np.mean(potential.values(np.array([-1.0, 1.0]))))
    if isinstance(potential, GaussianPotential):
        mean = gaussian_mean(d, potential.t)
    else:
        mean = _singular_mean(d, potential.s) if singular else softened_mean(d, potential)
    return 2 * mean if potential.half_space else mean


def uniform_energy(
    n: int,
    d: int,
    s: float | None = None,
    *,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    softening: float | str | None = None,
) -> float:
    """The expected energy of neurons with independent, uniform random directions.

    For `0 < s < d - 1` it is `U = 2^(d-2-s) Γ(d/2) Γ((d-1-s)/2) / (√π Γ(d-1-s/2))`. For `s = 0` it
    is `U = -log 2 + (ψ(d-1) - ψ((d-1)/2)) / 2`. Neither depends on `n`. For `s >= d - 1` the mean
    of the singular potential is infinite. In this case, for angles, and if `softening` is given,
    the softened potential is integrated over the density of the angle, which is proportional to
    `sin^(d-2)`. In half space the energy is `((n-1) 2U + f(-1)) / (2n-1)`, where U is the value in
    full space and `f(-1)` is the energy of opposite points.

    For a Gaussian, it is the logarithm of the expected mean, where U is the integral of
    `exp(-2t (1 - c))` over the density of the angle. The expected energy is slightly smaller.

    Args:
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or larger; 0 means the logarithm. None means 2.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian, as in `MHE`.
        half_space: whether to include the mirror images of the neurons.
        softening: as in `MHE`. The result is the mean of `hyperspherical_energy` with the same
            softening. None means the singular potential if its mean has a closed form, and
            `"auto"` otherwise. The two differ in few dimensions, for example by 1.2 % for `s = 1`
            and 1,000 neurons in 3 dimensions.

    Returns:
        A float, without unit, accurate to at least eight digits.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: a Beta integral. Liu et al. (2018), NeurIPS, define the energy.

    Examples:
        >>> from keras_mhe.reference import uniform_energy
        >>> round(uniform_energy(1000, 3, s=1), 6)
        1.0
    """
    n, d = check_counts(n, d)
    spec = PotentialSpec(s, distance, half_space, "auto" if softening is None else softening, t)
    potential = spec.potential(n, d)
    singular = softening is None and spec.distance == "euclidean" and spec.s < d - 1
    return potential.energy_from_mean(_mean_of_pairs(d, potential, singular), n)


def _is_supported(function: Callable[[np.ndarray], np.ndarray], at: float, least: float) -> bool:
    """Whether a line touches an increasing function at `at` and is nowhere above it."""
    x = np.linspace(least, 1.0, _POINTS)
    x = x[np.abs(x - at) > 1e-9]
    slopes = (function(x) - function(np.array(at))) / (x - at)
    steepest = np.max(slopes[x < at], initial=0.0)
    return bool(steepest <= np.min(slopes[x > at], initial=np.inf) * (1 + 1e-9))


@functools.lru_cache(maxsize=1024)
def _bound(n: int, d: int, potential: Potential) -> float | None:
    if n == 1:
        return potential.energy_from_mean(0.0, n)
    if potential.half_space:
        x, least = max(0.0, (n - d) / (d * (n - 1))), 0.0
    else:
        x, least = -1 / (n - 1), -1.0

    def pair(x: np.ndarray) -> np.ndarray:
        return potential.values(np.sqrt(x) if potential.half_space else x)

    # A Gaussian is convex in x, because all its derivatives are positive.
    if isinstance(potential, RieszPotential) and not _is_supported(pair, x, least):
        return None
    return potential.energy_from_mean(float(pair(np.array(x))), n)


def lower_bound(
    n: int,
    d: int,
    s: float | None = None,
    *,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    softening: float | str = "auto",
) -> float | None:
    """A lower bound on the energy of all sets of neurons.

    In full space it is `f(-1/(n-1))`, where f is the energy of a pair as a function of its cosine,
    because the mean cosine is at least `-1/(n-1)`. The simplex attains it for `n <= d + 1`. In half
    space it is `((n-1) (f(√x) + f(-√x)) + f(-1)) / (2n-1)`, where `x = max(0, (n-d) / (d (n-1)))`
    is Welch's bound on the mean squared cosine. Orthonormal neurons (`n <= d`) and equiangular
    tight frames attain it.

    Both follow from Jensen's inequality. It requires a line that touches f at this point and is
    nowhere above f. (In half space, `f(√x) + f(-√x)` replaces f.) Euclidean energies and angular
    energies in half space have such a line. Angular energies in full space have one for at least 5
    neurons if `s = 1`, and for at least 4 if `s = 2`. They have none if `s = 0`: the cross-polytope
    has less energy than the formula gives. With large `softening` the line may not exist either.
    A Gaussian always has one. Its bound is the logarithm of the bound on its mean.

    Args:
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or larger; 0 means the logarithm. None means 2.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian, as in `MHE`.
        half_space: whether to include the mirror images of the neurons.
        softening: distance below which the potential is continued linearly, as in `MHE`.

    Returns:
        A float, without unit, or None if no bound is known.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Welch (1974), "Lower bounds on the maximum cross correlation of signals", IEEE
    Transactions on Information Theory.

    Examples:
        >>> from keras_mhe.reference import lower_bound
        >>> lower_bound(4, 3)  # the tetrahedron, whose squared distances are 8/3
        0.375
    """
    n, d = check_counts(n, d)
    return _bound(n, d, PotentialSpec(s, distance, half_space, softening, t).potential(n, d))


def span_above(least: float, n: int, d: int, spec: PotentialSpec) -> float:
    """How far `uniform_energy` is above the least energy; 0 if all sets have the same energy."""
    random = uniform_energy(
        n,
        d,
        spec.s,
        distance=spec.distance,
        t=spec.t,
        half_space=spec.half_space,
        softening=spec.softening,
    )
    # For a single neuron, or neurons of one coordinate, only rounding makes the span positive.
    return random - least if random - least > 1e-12 * abs(least) else 0.0


def position(
    energy: float,
    n: int,
    d: int,
    s: float | None = None,
    *,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    softening: float | str = "auto",
) -> float | None:
    """The position of an energy between the lower bound and the energy of random neurons.

    `(energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1 is random,
    and above 1 the neurons are clustered.

    Args:
        energy: the energy of the neurons, from `hyperspherical_energy` with the same arguments.
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or larger; 0 means the logarithm. None means 2.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian, as in `MHE`.
        half_space: whether to include the mirror images of the neurons.
        softening: distance below which the potential is continued linearly, as in `MHE`.

    Returns:
        A float, without unit, or None if no bound is known or if all sets of neurons have the
        same energy.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: this package defines it.

    Examples:
        >>> from keras_mhe.reference import position
        >>> position(0.375, 4, 3)
        0.0
    """
    spec = PotentialSpec(s, distance, half_space, softening, t)
    n, d = check_counts(n, d)
    bound = _bound(n, d, spec.potential(n, d))
    if bound is None:
        return None
    span = span_above(bound, n, d, spec)
    return (float(energy) - bound) / span if span else None
