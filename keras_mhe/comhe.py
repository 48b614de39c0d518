"""Compressive MHE: the energy of neurons projected to few dimensions."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mhe.learned import AdversarialProjection, AngleProjection, LearnedProjection
from keras_mhe.potentials import check_potential
from keras_mhe.projections import GroupProjection, Projection, RandomProjection
from keras_mhe.regularizers import HypersphericalRegularizer

_SHORT_FORMS = {
    "random": RandomProjection,
    "angle": AngleProjection,
    "adversarial": AdversarialProjection,
    "group": GroupProjection,
}


def _check_projection(projection: Any) -> Projection:
    if isinstance(projection, dict):
        projection = keras.saving.deserialize_keras_object(projection)
    if isinstance(projection, str) and projection in _SHORT_FORMS:
        return _SHORT_FORMS[projection]()
    if isinstance(projection, Projection):
        return projection
    names = ", ".join(f'"{name}"' for name in _SHORT_FORMS)
    raise ValueError(
        f"Invalid value for argument `projection`. Expected one of {names} or an instance of "
        f"{', '.join(form.__name__ for form in _SHORT_FORMS.values())}. "
        f"Received: projection={projection!r}"
    )


@keras.saving.register_keras_serializable(package="keras_mhe")
class CoMHE(HypersphericalRegularizer):
    """Compressive minimum hyperspherical energy: that of the neurons in few dimensions.

    `loss = factor * E(PW)`, E the energy of `hyperspherical_energy`, W the neurons (columns of
    the kernel) and P a projection to few dimensions, where neurons are closer to each other and
    the energy has more to say than in many. What P is and how the energies of several are
    averaged: `RandomProjection`, `AngleProjection`, `AdversarialProjection`, `GroupProjection`.

    Random and group projections work as any `kernel_regularizer`. The other two learn: wrap the
    layer in `HypersphericalRegularization`, which keeps what they have learned.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight of the energy in the loss, zero or more. The papers use 1.
        s: power of the potential, zero or more; 0 is the logarithm.
        projection: `"random"`, `"angle"`, `"adversarial"`, `"group"` or an instance of the classes
            above.
        distance: `"euclidean"` or `"angular"`.
        half_space: also repel the mirror images of the neurons, as the papers do.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons which compete only among themselves,
            as in `MHE`; `None` is 1. All groups share their projections.
        softening: as in `MHE`; `"auto"` goes by the dimensions of the projected neurons.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit, and for a projection that learns.
        NotImplementedError: for second derivatives of an energy that is projected by a matrix or,
            as it has many neurons, computed by panels.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> import keras
        >>> from keras_mhe import CoMHE, RandomProjection
        >>> regularizer = CoMHE(projection=RandomProjection(dim=30, count=20))
        >>> layer = keras.layers.Conv2D(64, 3, kernel_regularizer=regularizer)
    """

    def __init__(
        self,
        factor: float = 1.0,
        s: float = 2.0,
        *,
        projection: str | Projection = "random",
        distance: str = "euclidean",
        half_space: bool = True,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
        softening: float | str = "auto",
    ) -> None:
        super().__init__(factor, neuron_axis, groups)
        self.s, self.distance, self.half_space, self.softening = check_potential(
            s, distance, half_space, softening
        )
        self.projection = _check_projection(projection)

    @property
    def _pair(self) -> dict[str, Any]:
        return {
            "s": self.s,
            "distance": self.distance,
            "half_space": self.half_space,
            "softening": self.softening,
        }

    @property
    def learner(self) -> str | None:
        if not isinstance(self.projection, LearnedProjection):
            return None
        return f"keras_mhe.CoMHE(projection=keras_mhe.{type(self.projection).__name__}())"

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return self.projection.state_shapes(dimension)

    def advanced(self, matrix: Any, state: dict[str, Any]) -> dict[str, Any]:
        return self.projection.advanced(matrix, state, **self._pair)

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        return self.projection.energy(matrix, state, **self._pair)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "s": self.s,
            "projection": keras.saving.serialize_keras_object(self.projection),
            "distance": self.distance,
            "half_space": self.half_space,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "softening": self.softening,
        }
