"""The base of the regularizers that compare neurons by a potential."""

from typing import Any

from keras_mhe._arguments import check_choice
from keras_mhe._typing import NeuronAxis
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.reference._attainable import position_unit
from keras_mhe.regularizers._base import HypersphericalRegularizer


class PotentialRegularizer(HypersphericalRegularizer):
    """Base class of the regularizers that compare neurons by a potential.

    Args:
        factor: as in `MHE`.
        spec: the potential.
        neuron_axis: as in `MHE`.
        groups: as in `MHE`.
        scale: as in `MHE`.
        bounded: as in `MHE`.
    """

    def __init__(
        self,
        factor: float,
        spec: PotentialSpec,
        neuron_axis: NeuronAxis,
        groups: int | None,
        scale: str,
        bounded: bool,
    ) -> None:
        super().__init__(factor, neuron_axis, groups, bounded)
        self.spec, self.half_space = spec, spec.half_space
        self.scale = check_choice(scale, "scale", ("energy", "position"))

    @property
    def s(self) -> float | None:
        """Power of the potential; None for a Gaussian."""
        return self.spec.s

    @property
    def distance(self) -> str:
        """Distance in the potential, `"euclidean"`, `"angular"` or `"gaussian"`."""
        return self.spec.distance

    @property
    def t(self) -> float | None:
        """Rate of a Gaussian; None for other potentials."""
        return self.spec.t

    @property
    def softening(self) -> float | str:
        """Distance below which the potential is continued linearly, or `"auto"`."""
        return self.spec.softening

    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        """Numbers of coordinates in which energies are computed, each with its share."""
        return [(1.0, dimension)]

    def offset_and_weight(self, n: int, dimension: int) -> tuple[float, float]:
        if self.scale == "energy":
            return 0.0, 1.0
        units = [
            (share, position_unit(n, rows, self.spec)) for share, rows in self.dimensions(dimension)
        ]
        offset = sum(share * best for share, (best, _) in units)
        span = sum(share * span for share, (_, span) in units)
        return offset, 1.0 / span if span else 0.0

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "s": self.s,
            "distance": self.distance,
            # Files without a Gaussian load in earlier versions too.
            **({} if self.t is None else {"t": self.t}),
            "half_space": self.half_space,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "softening": self.softening,
            "scale": self.scale,
            "bounded": self.bounded,
        }
