"""The projections of compressive MHE that do not learn: random ones, and groups of coordinates."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import compiled, normals
from keras_mhe.axes import check_integer, neuron_matrix
from keras_mhe.energy import energy_of, with_gradient
from keras_mhe.inner import projected_value_and_gradient
from keras_mhe.potentials import Potential, check_flag, potential_of
from keras_mhe.seeds import fingerprint, seed_of

_LARGEST_SEED = 2**31 - 1


class Projection(abc.ABC):
    """Base of the projections: how the neurons of a kernel become neurons of few dimensions."""

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what is learned, for neurons of so many coordinates."""
        return {}

    def advanced(self, matrix: Any, state: dict[str, Any], **pair: Any) -> dict[str, Any]:
        """What is learned after a training step."""
        return state

    @abc.abstractmethod
    def energy(self, matrix: Any, state: dict[str, Any], **pair: Any) -> Any:
        """The energy of the projected neurons of a matrix, a scalar tensor.

        `pair`: `s`, `distance`, `half_space` and `softening`.
        """

    def _set_integer(self, name: str, least: int = 1) -> None:
        what = "a positive integer" if least == 1 else f"an integer of at least {least}"
        number = check_integer(getattr(self, name), name, least=least, what=what)
        object.__setattr__(self, name, number)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Projection":
        return cls(**config)


def dtype_of(matrix: Any) -> str:
    """The name of a tensor's dtype."""
    return str(keras.backend.standardize_dtype(matrix.dtype))


def _draw(matrix: Any, projection: "RandomProjection") -> Any:
    number = fingerprint(matrix) if projection.resample else 0
    shape = (projection.count, projection.dim, matrix.shape[-2])
    return normals(shape, dtype_of(matrix), seed_of(number, projection.seed))


@functools.lru_cache(maxsize=256)
def _compiled_draw(shape: tuple[int, ...], dtype: str, projection: "RandomProjection") -> Any:
    return compiled(lambda matrix: _draw(matrix, projection), (shape, dtype))


@functools.lru_cache(maxsize=256)
def _compiled_random(
    shape: tuple[int, ...], dtype: str, projection: "RandomProjection", potential: Potential
) -> Any:
    return compiled(
        lambda matrix: projected_value_and_gradient(matrix, _draw(matrix, projection), potential),
        (shape, dtype),
    )


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class RandomProjection(Projection):
    """Random projections of compressive MHE, drawn anew at every step.

    `E = mean over c of E(P_c W)`, the `count` matrices `P_c` of shape `(dim, d)` with entries
    `N(0, 1)`. They are drawn from the bits of the kernel: others as soon as it moves, the same
    for the same kernel, on every replica and after loading.

    Args:
        dim: dimensions of the projected neurons. Neurons of no more coordinates are not projected.
        count: number of projections.
        seed: picks the stream of draws, an integer from 0 to `2^31 - 1`.
        resample: False keeps one draw for good, for each shape of a kernel.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> from keras_mhe import CoMHE, RandomProjection
        >>> CoMHE(projection=RandomProjection(dim=30)).projection.count
        20
    """

    dim: int = 40
    count: int = 20
    seed: int = 0
    resample: bool = True

    def __post_init__(self) -> None:
        self._set_integer("dim")
        self._set_integer("count")
        self._set_integer("seed", least=0)
        if self.seed > _LARGEST_SEED:
            raise ValueError(
                "Invalid value for argument `seed`. Expected an integer of at most "
                f"{_LARGEST_SEED}. Received: seed={self.seed}"
            )
        object.__setattr__(self, "resample", check_flag(self.resample, "resample"))

    def draw(
        self,
        kernel: Any,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
    ) -> Any:
        """The projections that a kernel draws in training.

        Args:
            kernel: floating-point tensor or variable with at least two axes.
            neuron_axis: as in `MHE`.
            groups: as in `MHE`.

        Returns:
            A tensor of shape `(count, dim, d)`, d the coordinates of a neuron.

        Raises:
            TypeError: for an integer kernel.
            ValueError: for a kernel that does not fit, or whose neurons have no more than `dim`
                coordinates.
        """
        matrix = neuron_matrix(kernel, neuron_axis, groups)
        if matrix.shape[-2] <= self.dim:
            raise ValueError(
                f"Neurons of no more than dim={self.dim} coordinates are not projected. "
                f"Received: kernel.shape={tuple(kernel.shape)}"
            )
        # Compiled, as in training: TensorFlow draws otherwise without XLA.
        return _compiled_draw(tuple(matrix.shape), dtype_of(matrix), self)(matrix)

    def energy(self, matrix: Any, state: dict[str, Any], **pair: Any) -> Any:
        if matrix.shape[-2] <= self.dim:
            return energy_of(matrix, potential_of(matrix, **pair))
        potential = potential_of(matrix, **pair, dimension=self.dim)
        program = _compiled_random(tuple(matrix.shape), dtype_of(matrix), self, potential)
        return with_gradient(program, matrix, twice=False)


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class GroupProjection(Projection):
    """Projections of compressive MHE to disjoint groups of coordinates.

    `E = mean over k of E(W_k)`, `W_k` the rows in group k of the matrix of neurons, of shape
    `(d, N)`. Groups are contiguous and their sizes differ by at most one.

    Args:
        count: number of groups, at most that of the coordinates of a neuron.

    Raises:
        TypeError, ValueError: for an argument of the wrong type or out of range; at the first
            call (in the layer wrapper when it is built) for a kernel with fewer coordinates.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> from keras_mhe import CoMHE, GroupProjection
        >>> regularizer = CoMHE(projection=GroupProjection(8))
    """

    count: int = 4

    def __post_init__(self) -> None:
        self._set_integer("count")

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        if self.count > dimension:
            raise ValueError(
                "A neuron needs a coordinate for each of the groups of its projection. "
                f"Received: count={self.count}, neurons of {dimension} coordinates"
            )
        return {}

    def energy(self, matrix: Any, state: dict[str, Any], **pair: Any) -> Any:
        *batch, d, n = matrix.shape
        self.state_shapes(d)
        size, larger = divmod(d, self.count)
        end = larger * (size + 1)
        parts = [
            (larger, size + 1, matrix[..., :end, :]),
            (self.count - larger, size, matrix[..., end:, :]),
        ]
        energy: Any = 0.0
        for count, rows, part in parts:
            if count:
                groups = ops.reshape(part, (*batch, count, rows, n))
                share = count / self.count
                energy = energy + share * energy_of(groups, potential_of(groups, **pair))
        return energy
