"""The arguments that define a potential."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_mhe._arguments import check_choice, check_flag, check_nonnegative
from keras_mhe._typing import Tensor
from keras_mhe.energies._gaussian import GaussianPotential, check_t
from keras_mhe.energies._potential_base import Potential
from keras_mhe.energies._riesz import RieszPotential
from keras_mhe.energies._softening import check_softening, epsilon_of

# Other modules import both from here.
__all__ = ["Potential", "PotentialSpec"]


@dataclass(frozen=True)
class PotentialSpec:
    """The arguments that define a potential, with checks.

    A spec, a number of neurons and a number of coordinates define a `Potential`.

    Args:
        s: power of the distance; None means 2. A Gaussian has none, and its `s` stays None.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        half_space: whether mirror images count as neurons.
        softening: as in `MHE`. A Gaussian is bounded and has none.
        t: rate of a Gaussian; None means 2. Other potentials have none.
    """

    s: Any = None
    distance: str = "euclidean"
    half_space: bool = False
    softening: float | str = "auto"
    t: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.distance, "distance", ("euclidean", "angular", "gaussian"))
        for name, value in {
            "half_space": check_flag(self.half_space, "half_space"),
            "softening": check_softening(self.softening),
            **(self._gaussian() if self.distance == "gaussian" else self._riesz()),
        }.items():
            object.__setattr__(self, name, value)

    def _gaussian(self) -> dict[str, float | None]:
        if self.s is not None:
            raise ValueError(
                'Argument `s` does not apply to distance="gaussian", which has a rate `t`. '
                f"Received: s={self.s!r}"
            )
        if not isinstance(self.softening, str):
            raise ValueError(
                'Argument `softening` does not apply to distance="gaussian", which is finite at '
                f"all distances. Received: softening={self.softening!r}"
            )
        return {"t": check_t(self.t)}

    def _riesz(self) -> dict[str, float | None]:
        if self.t is not None:
            raise ValueError(
                'Argument `t` applies only to distance="gaussian". '
                f'Received: t={self.t!r}, distance="{self.distance}"'
            )
        return {"s": 2.0 if self.s is None else check_nonnegative(self.s, "s")}

    def potential(
        self, n: int | Tensor, dimension: int, dtype: str = "float32"
    ) -> RieszPotential | GaussianPotential:
        """The potential for n neurons with `dimension` coordinates, computed in `dtype`.

        The number n may be a scalar integer tensor. The softening is then a tensor too.
        """
        if self.t is not None:
            return GaussianPotential.of(self.t, self.half_space)
        points = 2 * n if self.half_space else n
        epsilon = epsilon_of(self.softening, points, dimension, dtype)
        return RieszPotential(self.s, self.distance == "angular", self.half_space, epsilon)

    def of_neurons(
        self, matrix: Tensor, dimension: int | None = None
    ) -> RieszPotential | GaussianPotential:
        """The potential for a matrix of neurons, which may be projected to fewer dimensions."""
        *_, coordinates, n = matrix.shape
        dtype = keras.backend.standardize_dtype(matrix.dtype)
        return self.potential(n, coordinates if dimension is None else dimension, dtype)
