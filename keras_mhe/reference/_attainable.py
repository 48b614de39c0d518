"""The energy that neurons can reach."""

import functools

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._quadrature import pair_distribution
from keras_mhe.reference._energies import check_counts, span_above


def attainable_energy(
    n: int,
    d: int,
    s: float | None = None,
    *,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    softening: float | str = "auto",
) -> float:
    """An estimate of the lowest energy that neurons can reach.

    It is `sum over i of w_i f(c_i)`, where f is the energy of a pair, and the cosines `c_i` and
    weights `w_i` are those of Levenshtein's quadrature. For a Gaussian, it is the logarithm of this
    mean. For Gaussians, and for Euclidean distances without softening, it is the universal lower
    bound, which is at least as large as `lower_bound`. For `n <= d + 1` (`n <= d` in half space)
    the two are equal. For more neurons, `lower_bound` is far below what neurons can reach. The
    known minima of 5 to 122 neurons in 3 dimensions for `s = 1` are above this estimate by at most
    1 % of its distance from `uniform_energy`. In 2 dimensions it is the energy of a regular
    polygon. For angles, and where softening changes the potential, it is an estimate and no bound.

    Args:
        n: number of neurons.
        d: number of coordinates of a neuron.
        s: power of the potential, zero or larger; 0 means the logarithm. None means 2.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of a Gaussian, as in `MHE`.
        half_space: whether to include the mirror images of the neurons.
        softening: distance below which the potential is continued linearly, as in `MHE`.

    Returns:
        A float, without unit.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Boyvalenkov, Dragnev, Hardin, Saff and Stoyanova (2016), "Universal lower bounds for
    potential energy of spherical codes", Constructive Approximation.

    Examples:
        >>> from keras_mhe.reference import attainable_energy, lower_bound
        >>> round(attainable_energy(12, 3, s=1), 6)  # the icosahedron
        0.744928
        >>> round(lower_bound(12, 3, s=1), 6)
        0.677003
    """
    n, d = check_counts(n, d)
    potential = PotentialSpec(s, distance, half_space, softening, t).potential(n, d)
    if n == 1:
        return potential.energy_from_mean(0.0, n)
    cosines, weights = pair_distribution(n, d, half_space)
    return potential.energy_from_mean(float(weights @ potential.values(cosines)), n)


@functools.lru_cache(maxsize=1024)
def position_unit(n: int, d: int, spec: PotentialSpec) -> tuple[float, float]:
    """The attainable energy and the distance of the energy of random neurons from it.

    The distance is zero if the energy has no gradient.
    """
    best = attainable_energy(
        n,
        d,
        spec.s,
        distance=spec.distance,
        t=spec.t,
        half_space=spec.half_space,
        softening=spec.softening,
    )
    return best, span_above(best, n, d, spec) if d > 1 else 0.0
