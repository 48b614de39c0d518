"""Compressive MHE: the energy of neurons that are projected to few dimensions."""

from typing import Any

import keras

from keras_mhe._typing import NeuronAxis, Shape, State, Tensor
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.regularizers._learned_projections import AdversarialProjection, AngleProjection
from keras_mhe.regularizers._potential_base import PotentialRegularizer
from keras_mhe.regularizers._projections import GroupProjection, Projection, RandomProjection

_PROJECTIONS = {
    "random": RandomProjection,
    "angle": AngleProjection,
    "adversarial": AdversarialProjection,
    "group": GroupProjection,
}
# Steps of an adversarial projection follow a mean, not its logarithm. Groups of coordinates would
# need a mean of logarithms, which is not the energy of several sets of neurons.
_FOR_GAUSSIANS = (RandomProjection, AngleProjection)


def _check_projection(projection: Any) -> Projection:
    if isinstance(projection, dict):
        projection = keras.saving.deserialize_keras_object(projection)
    if isinstance(projection, str) and projection in _PROJECTIONS:
        return _PROJECTIONS[projection]()
    if isinstance(projection, Projection):
        return projection
    names = ", ".join(f'"{name}"' for name in _PROJECTIONS)
    raise ValueError(
        f"Invalid value for argument `projection`. Expected one of {names} or an instance of "
        f"{', '.join(form.__name__ for form in _PROJECTIONS.values())}. "
        f"Received: projection={projection!r}"
    )


@keras.saving.register_keras_serializable(package="keras_mhe")
class CoMHE(PotentialRegularizer):
    """Compressive minimum hyperspherical energy: the energy after projection to few dimensions.

    `loss = factor * E(PW)`, where E is the energy of `hyperspherical_energy`, the columns of W are
    the neurons, and P is a projection to few dimensions. Neurons are closer to each other in few
    dimensions, so the energy distinguishes their arrangements better. `RandomProjection`,
    `AngleProjection`, `AdversarialProjection` and `GroupProjection` define P, and how the energies
    of several projections are averaged.

    With a random or group projection, `CoMHE` works as any `kernel_regularizer`. The other two
    projections are learned. They need the layer wrapper `HypersphericalRegularization`, which
    stores them.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 1.
        s: power of the potential, zero or larger; 0 means the logarithm. `None` means 2.
        projection: `"random"`, `"angle"`, `"adversarial"`, `"group"`, or an instance of one of the
            classes above.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`, as in `MHE`. A Gaussian needs a random
            or an angle-preserving projection. With several projections, the loss is the logarithm
            of the mean over all of them.
        t: rate of the Gaussian, as in `MHE`.
        half_space: whether to include the mirror images `-u_i` of the neurons, as the papers do.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups. All groups share the same projections.
        softening: distance below which the potential is continued linearly, as in `MHE`. `"auto"`
            uses the number of dimensions after projection.
        scale: unit of the loss, as in `MHE`. `"position"` uses the number of dimensions after
            projection.
        bounded: whether to bound the gradient, as in `MHE`. With a random projection, the gradient
            of each draw is bounded.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis`, `groups` or the groups of a
            `GroupProjection`, or if the projection is learned and there is no layer wrapper.
        NotImplementedError: if second derivatives are requested of an energy that is projected by a
            matrix or computed by panels.

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
        s: float | None = None,
        *,
        projection: str | Projection = "random",
        distance: str = "euclidean",
        t: float | None = None,
        half_space: bool = True,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        softening: float | str = "auto",
        scale: str = "energy",
        bounded: bool = True,
    ) -> None:
        spec = PotentialSpec(s, distance, half_space, softening, t)
        super().__init__(factor, spec, neuron_axis, groups, scale, bounded)
        self.projection = _check_projection(projection)
        if distance == "gaussian" and not isinstance(self.projection, _FOR_GAUSSIANS):
            raise ValueError(
                'With distance="gaussian", argument `projection` must be "random", "angle" or an '
                "instance of RandomProjection or AngleProjection. "
                f"Received: projection={projection!r}"
            )

    @property
    def stateful(self) -> bool:
        return self.projection.stateful

    @property
    def example(self) -> str:
        return f"keras_mhe.CoMHE(projection=keras_mhe.{type(self.projection).__name__}())"

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        return self.projection.state_shapes(dimension)

    def update_state(self, matrix: Tensor, state: State) -> State:
        return self.projection.update_state(matrix, state, self.spec)

    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        return self.projection.dimensions(dimension)

    def program(self, matrix: Tensor, state: State) -> EnergyProgram:
        return self.projection.program(matrix, state, self.spec)

    def get_config(self) -> dict[str, Any]:
        projection = keras.saving.serialize_keras_object(self.projection)
        return {**super().get_config(), "projection": projection}
