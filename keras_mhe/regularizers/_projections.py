"""Projections of compressive MHE that are not learned: random, and groups of coordinates."""

import abc
import dataclasses
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_mhe._arguments import check_choice, check_flag, check_integer
from keras_mhe._backend import normals
from keras_mhe._random import fingerprint, seed_of
from keras_mhe._typing import NeuronAxis, Shape, State, Tensor
from keras_mhe.energies._energy import energy_program
from keras_mhe.energies._neurons import neuron_matrix
from keras_mhe.energies._pair_sums import panel_width
from keras_mhe.energies._pairs import value_and_gradient
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram, program_for
from keras_mhe.regularizers._projection_steps import projected_value_and_tangent
from keras_mhe.regularizers._sign_projections import (
    sign_projected_value_and_tangent,
    sign_projections,
)

_LARGEST_SEED = 2**31 - 1


class Projection(abc.ABC):
    """Base class of the projections of neurons to few dimensions."""

    @property
    def stateful(self) -> bool:
        """Whether it is learned, so that only the layer wrapper can store it."""
        return False

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        """Names and shapes of the state, for neurons of `dimension` coordinates."""
        return {}

    def update_state(self, matrix: Tensor, state: State, spec: PotentialSpec) -> State:
        """The state after a training step."""
        return state

    @abc.abstractmethod
    def program(self, matrix: Tensor, state: State, spec: PotentialSpec) -> EnergyProgram:
        """The energy of the projected neurons of a matrix."""

    @abc.abstractmethod
    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        """Numbers of dimensions after projection, each with its share of the energy."""

    def _set_integer(self, name: str, least: int = 1) -> None:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        number = check_integer(getattr(self, name), name, least=least, expected=expected)
        object.__setattr__(self, name, number)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Projection":
        return cls(**config)


@dataclass(frozen=True)
class _Draw:
    """What a program draws.

    Attributes:
        count: number of projections.
        dim: number of dimensions.
        signs: whether entries are signs.
        constant_seed: the seed of a draw that does not depend on the neurons, or None.
    """

    count: int
    dim: int
    signs: bool
    constant_seed: int | None

    def seeds(self, matrix: Tensor, seed: Tensor) -> tuple[Any, Any]:
        """Two numbers for `seed_of`."""
        # TensorFlow draws other numbers from a constant seed, because it does so without XLA.
        # Losses of saved models depend on them.
        if self.constant_seed is None:
            return fingerprint(matrix), seed
        return 0, self.constant_seed

    def projections(self, matrix: Tensor, seed: Tensor) -> Tensor:
        """The projections, of shape `(count, dim, d)`."""
        d, dtype = matrix.shape[-2], keras.backend.standardize_dtype(matrix.dtype)
        numbers = self.seeds(matrix, seed)
        if self.signs:
            return sign_projections(d, self.count, self.dim, dtype, *numbers)
        return normals((self.count, self.dim, d), dtype, seed_of(*numbers))


def _projections(matrix: Tensor, seed: Tensor, draw: _Draw) -> Tensor:
    return draw.projections(matrix, seed)


def _random_value_and_tangent(
    matrix: Tensor, seed: Tensor, draw: _Draw, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    if draw.signs:
        numbers = draw.seeds(matrix, seed)
        return sign_projected_value_and_tangent(matrix, draw.count, draw.dim, potential, *numbers)
    return projected_value_and_tangent(matrix, draw.projections(matrix, seed), potential)


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class RandomProjection(Projection):
    """Random projections of compressive MHE, drawn again at each step.

    `E = mean over c of E(P_c W)`, where the `count` matrices `P_c` have the shape `(dim, d)` and
    random entries of mean 0 and variance 1. The draw is computed from the bits of the kernel. It
    changes when the kernel changes. It is the same for the same kernel, on every replica and after
    loading.

    Args:
        dim: number of dimensions after projection, at least 2. Neurons with at most `dim`
            coordinates are not projected.
        count: number of projections.
        seed: integer from 0 to `2^31 - 1`. Different seeds give different draws.
        resample: whether to draw again when the kernel changes. If False, all kernels of the same
            shape use one constant draw.
        distribution: `"normal"` for entries from `N(0, 1)`, as the papers, or `"sign"` for entries
            1 and -1: rows of a Hadamard matrix in random order, with random signs of the
            coordinates. Signs are computed by a fast transform. The energy has about the same mean
            and spread, and takes less time. In few dimensions, and for neurons with few non-zero
            coordinates, projections by signs often coincide.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR. For signs: Ailon and Chazelle (2009), "The fast Johnson-Lindenstrauss transform
    and approximate nearest neighbors", SIAM Journal on Computing.

    Examples:
        >>> from keras_mhe import CoMHE, RandomProjection
        >>> CoMHE(projection=RandomProjection(dim=30)).projection.count
        20
    """

    dim: int = 40
    count: int = 20
    seed: int = 0
    resample: bool = True
    distribution: str = "normal"

    def __post_init__(self) -> None:
        check_choice(self.distribution, "distribution", ("normal", "sign"))
        self._set_integer("dim", least=2)
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
        kernel: Tensor,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
    ) -> Tensor:
        """The projections that training uses for a kernel.

        Args:
            kernel: floating-point tensor or variable with at least two axes.
            neuron_axis: as in `MHE`.
            groups: as in `MHE`.

        Returns:
            A tensor of shape `(count, dim, d)`, where d is the number of coordinates of a neuron.

        Raises:
            TypeError: if the kernel is not floating point.
            ValueError: if the kernel does not fit `neuron_axis` or `groups`, or if its neurons have
                at most `dim` coordinates.
        """
        matrix = neuron_matrix(kernel, neuron_axis, groups)
        if matrix.shape[-2] <= self.dim:
            raise ValueError(
                f"Neurons with at most dim={self.dim} coordinates are not projected. "
                f"Received: kernel.shape={tuple(kernel.shape)}"
            )
        # Compiled as in training: without XLA, TensorFlow draws other numbers.
        program = program_for(_projections, matrix, self._seed, options=(self._draw,))
        return program(matrix, self._seed)

    @property
    def _seed(self) -> Tensor:
        """The seed as an argument of programs, so that one program serves all seeds."""
        return ops.convert_to_tensor(self.seed, "int32")

    @property
    def _draw(self) -> _Draw:
        constant_seed = None if self.resample else self.seed
        return _Draw(self.count, self.dim, self.distribution == "sign", constant_seed)

    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        return [(1.0, min(dimension, self.dim))]

    def program(self, matrix: Tensor, state: State, spec: PotentialSpec) -> EnergyProgram:
        if matrix.shape[-2] <= self.dim:
            return energy_program(matrix, spec.of_neurons(matrix))
        potential = spec.of_neurons(matrix, self.dim)
        return EnergyProgram(_random_value_and_tangent, (self._draw, potential), (self._seed,))


def _grouped_value_and_gradient(
    matrix: Tensor, parts: tuple[tuple[int, int, Potential], ...]
) -> tuple[Tensor, Tensor, None]:
    *batch, _, n = matrix.shape
    total, value, gradients, start = sum(count for count, _, _ in parts), 0.0, [], 0
    for count, rows, potential in parts:
        end = start + count * rows
        groups = ops.reshape(matrix[..., start:end, :], (*batch, count, rows, n))
        own_value, gradient = value_and_gradient(groups, potential)
        value = value + count / total * own_value
        gradients.append(count / total * ops.reshape(gradient, (*batch, count * rows, n)))
        start = end
    return value, ops.concatenate(gradients, axis=-2), None


@keras.saving.register_keras_serializable(package="keras_mhe")
@dataclass(frozen=True)
class GroupProjection(Projection):
    """Projections of compressive MHE to disjoint groups of coordinates.

    `E = mean over k of E(W_k)`, where W is the matrix of neurons, of shape `(d, N)`, and `W_k` are
    its rows in group k. Groups are contiguous, and their sizes differ by at most one. The energy of
    a group of one coordinate is constant, so choose `count` at most `d / 2`.

    Args:
        count: number of groups, less than the number of coordinates of a neuron.

    Raises:
        TypeError, ValueError: if `count` has the wrong type or is out of range. At the first call
            (when the layer wrapper is built), also if no group has two coordinates.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> from keras_mhe import CoMHE, GroupProjection
        >>> regularizer = CoMHE(projection=GroupProjection(8))
    """

    count: int = 4

    def __post_init__(self) -> None:
        self._set_integer("count")

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        # The loss of neurons of one coordinate is 0, so they are not divided into groups.
        if dimension > 1:
            self.dimensions(dimension)
        return {}

    def dimensions(self, dimension: int) -> list[tuple[float, int]]:
        if self.count >= dimension > 1 or self.count > 1 == dimension:
            raise ValueError(
                "A neuron needs more coordinates than its projection has groups, so that a group "
                f"has two. Received: count={self.count}, neurons of {dimension} coordinates"
            )
        size, larger = divmod(dimension, self.count)
        counts = [(larger, size + 1), (self.count - larger, size)]
        return [(count / self.count, rows) for count, rows in counts if count]

    def program(self, matrix: Tensor, state: State, spec: PotentialSpec) -> EnergyProgram:
        parts = tuple(
            (round(share * self.count), rows, spec.of_neurons(matrix, rows))
            for share, rows in self.dimensions(matrix.shape[-2])
        )
        by_panels = panel_width(matrix.shape[-1]) is not None
        return EnergyProgram(
            _grouped_value_and_gradient, (parts,), twice_differentiable=not by_panels
        )
