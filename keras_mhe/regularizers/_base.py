"""The base of all regularizers of this package, and the sum of any two regularizers."""

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_mhe._arguments import check_flag, check_nonnegative
from keras_mhe._backend import outside_torch_graphs
from keras_mhe._keras_internals import is_activity, is_low_rank_factor
from keras_mhe._typing import NeuronAxis, Shape, State, Tensor
from keras_mhe.energies._bound import largest_force
from keras_mhe.energies._drawn import DrawnProgram
from keras_mhe.energies._neurons import check_axes, neuron_matrix
from keras_mhe.energies._programs import EnergyProgram


def as_loss(value: Tensor) -> Tensor:
    """Casts to the dtype in which Keras adds losses, whatever the dtype of the kernel."""
    return keras.ops.cast(value, keras.config.floatx())


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0


def make_lazy(factor: keras.Variable) -> None:
    """Makes training steps that are compiled later compute no energy while the factor is zero."""
    factor.keras_mhe_lazy = True


def is_lazy(factor: Any) -> bool:
    """Whether steps compute no energy while the factor is zero."""
    return getattr(factor, "keras_mhe_lazy", False)


def refuse_activities(regularizer: Any) -> None:
    """Raises if a regularizer is used as `activity_regularizer`."""
    if is_activity():
        raise ValueError(
            "A regularizer of keras_mhe cannot be an `activity_regularizer`, because versions of "
            "Keras differ: some divide its loss by the size of the batch. For the energy of a "
            "batch, call `keras_mhe.Uniformity(...)` on the outputs of the layer. "
            f"Received: {regularizer!r}"
        )


class Addable(keras.Regularizer):
    """A regularizer that supports `+` with any Keras regularizer on either side.

    It also supports `0 + regularizer`, with which Python's `sum` begins.
    """

    def __add__(self, other: Any) -> "Addable":
        if _is_zero(other):
            return self
        if not isinstance(other, keras.Regularizer):
            return NotImplemented
        return RegularizerSum([self, other])

    def __radd__(self, other: Any) -> "Addable":
        if _is_zero(other):
            return self
        if not isinstance(other, keras.Regularizer):
            return NotImplemented
        return RegularizerSum([other, self])

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.get_config())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_mhe")
class RegularizerSum(Addable):
    """Sum of regularizers.

    `loss = r_1(kernel) + r_2(kernel) + ...`

    The operator `+` creates this sum if at least one of its two regularizers is from this package.
    Python's `sum` does so too if its first regularizer is from this package.

    Args:
        regularizers: sequence of at least one `keras.Regularizer` or function of a kernel. Sums in
            it are flattened.

    Raises:
        TypeError, ValueError: if an element is not a regularizer, or if the sequence is empty.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> both = HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4)
        >>> layer = keras.layers.Conv2D(64, 3, kernel_regularizer=both)
    """

    def __init__(self, regularizers: Sequence[Callable[..., Tensor]]) -> None:
        self.regularizers: list[Callable[..., Tensor]] = []
        for term in regularizers:
            if inspect.isclass(term) or not callable(term):
                raise TypeError(
                    "Invalid value for argument `regularizers`. Expected instances of "
                    f"`keras.Regularizer` or functions. Received: {term!r}"
                )
            self.regularizers += terms_of(term)
        if not self.regularizers:
            raise ValueError(
                "Invalid value for argument `regularizers`. Expected at least one "
                f"regularizer. Received: regularizers={regularizers!r}"
            )

    def __call__(self, kernel: Tensor) -> Tensor:
        return sum(as_loss(regularizer(kernel)) for regularizer in self.regularizers)

    def get_config(self) -> dict[str, Any]:
        return {"regularizers": [keras.regularizers.serialize(r) for r in self.regularizers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RegularizerSum":
        return cls([keras.regularizers.get(term) for term in config["regularizers"]])

    def __repr__(self) -> str:
        return " + ".join(repr(regularizer) for regularizer in self.regularizers)


def terms_of(regularizer: Any) -> list[Any]:
    """The terms of a sum, a list of one for any other regularizer, and [] for None."""
    if regularizer is None:
        return []
    return regularizer.regularizers if isinstance(regularizer, RegularizerSum) else [regularizer]


class HypersphericalRegularizer(Addable):
    """Base class of the regularizers of directions.

    `loss = factor * energy(neurons)`

    A subclass implements `program`. A `stateful` subclass learns a projection or a pole in addition
    to the kernel. It also implements `state_shapes`, `update_state` and `example`. The layer
    wrapper stores its state.

    Args:
        factor: as in `MHE`.
        neuron_axis: as in `MHE`.
        groups: as in `MHE`.
        bounded: as in `MHE`.
    """

    half_space = False
    # Whether the energy is constant if neurons have one coordinate, and so no directions.
    needs_directions = True
    # Whether it implements `batch_program`.
    of_batches = False
    # The variable that holds the factor while a `FactorSchedule` moves it.
    factor_variable: Any = None
    warned = False
    # Whether a loss, which a compiled step may contain, was computed with its arguments.
    used = False

    def __init__(
        self, factor: float, neuron_axis: NeuronAxis, groups: int | None, bounded: bool
    ) -> None:
        self.factor = check_nonnegative(factor, "factor")
        axes, count = check_axes(neuron_axis, groups)
        # A list, as in JSON, and a copy: the caller may change the original.
        self.neuron_axis = list(axes) if isinstance(neuron_axis, Sequence) else neuron_axis
        self.groups = None if groups is None else count
        self.bounded = check_flag(bounded, "bounded")

    def __setattr__(self, name: str, value: Any) -> None:
        if self.used and name in self.get_config():
            advice = (
                "To change it during training, use the callback "
                "`keras_mhe.FactorSchedule(lambda epoch: ...)`"
                if name == "factor"
                else "Create a new regularizer"
            )
            raise AttributeError(
                f"The {name} of a regularizer cannot change after its first use, because compiled "
                f"training steps keep the old value. {advice}. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has not been used.
        return {name: value for name, value in vars(self).items() if name != "used"}

    @property
    def current_factor(self) -> Any:
        """The factor, a number or a variable."""
        return self.factor if self.factor_variable is None else self.factor_variable

    @property
    def stateful(self) -> bool:
        """Whether it learns a state, which only the layer wrapper can store."""
        return False

    @property
    def example(self) -> str:
        """An expression that creates such a regularizer, for error messages."""
        return f"keras_mhe.{type(self).__name__}()"

    def state_shapes(self, dimension: int) -> dict[str, Shape]:
        """Names and shapes of the state, for neurons of `dimension` coordinates."""
        return {}

    def update_state(self, matrix: Tensor, state: State) -> State:
        """The state after a training step, for a matrix of neurons as in `program`."""
        return state

    def program(self, matrix: Tensor, state: State) -> EnergyProgram | DrawnProgram:
        """The program for the energy of a matrix of shape `(d, N)` or `(groups, d, N)`."""
        raise NotImplementedError

    def batch_program(self, points: Tensor, n: Any) -> EnergyProgram:
        """The program for the energy of the first n columns of a matrix; the others are zero.

        The number n is an integer or a scalar tensor, and the number of columns may be unknown.
        """
        raise NotImplementedError

    def moving(self, n: int) -> int:
        """The number of neurons that have a gradient, of n in a group."""
        return n

    def offset_and_weight(self, n: int, dimension: int) -> tuple[float, float]:
        """The energy at which the loss is zero, and the weight of the energy beside the factor."""
        return 0.0, 1.0

    def energy(self, matrix: Tensor, state: State) -> Tensor:
        """The energy of a matrix, a scalar tensor with the exact gradient."""
        return self.program(matrix, state).energy(matrix)

    def _warn_without_directions(self, n: int) -> None:
        """Warns once, although a regularizer is called in each trace and each eager step."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                "Neurons of one coordinate have no directions, so a kernel of such neurons has a "
                f"loss of 0. Received: {n} neurons, regularizer={self!r}",
                stacklevel=2,
            )

    def _warn_of_columns(self, kernel: Tensor) -> None:
        """Warns once if the columns of embeddings are compared because nobody named an axis."""
        embeddings = isinstance(kernel, keras.Variable) and kernel.name == "embeddings"
        if embeddings and self.neuron_axis is None and not self.warned:
            self.warned = True
            warnings.warn(
                f"{type(self).__name__} compares the columns of the embeddings {kernel.path}, but "
                "the embeddings of most layers are rows. Set `neuron_axis=0` for rows, or "
                f"`neuron_axis=-1` for columns. Received: shape={tuple(kernel.shape)}",
                stacklevel=2,
            )

    def weighted_energy(self, matrix: Tensor, state: State, factor: Any) -> Tensor:
        """The loss of a matrix for a factor, a number or a scalar tensor."""
        if not self.used:
            # Only once: a later assignment would compute the config in each eager step.
            self.used = True
        *groups, dimension, n = matrix.shape
        if dimension == 1 and self.needs_directions:
            self._warn_without_directions(n)
            # The sum of no entries is zero even if the kernel holds NaN, and its gradient is zero.
            return as_loss(keras.ops.sum(matrix[..., :0]))
        offset, weight = self.offset_and_weight(n, dimension)
        force = None
        if self.bounded:
            moving = math.prod(groups) * self.moving(n)
            force = largest_force(n, dimension, self.half_space, moving)
        program, lazy = self.program(matrix, state), is_lazy(factor)
        return as_loss(program.loss(matrix, factor * weight, force, offset, lazy))

    def loss(self, kernel: Tensor) -> Tensor:
        """The weighted energy of a kernel."""
        if self.stateful:
            raise ValueError(
                f"{self.example} learns a state during training, and a bare regularizer cannot "
                "store it. Use the layer wrapper instead of `kernel_regularizer`: "
                "`keras_mhe.HypersphericalRegularization(keras.layers.Dense(64), "
                f"{self.example})`. Received: {self!r}"
            )
        self._warn_of_columns(kernel)
        matrix = neuron_matrix(kernel, self.neuron_axis, self.groups)
        return self.weighted_energy(matrix, {}, self.current_factor)

    @outside_torch_graphs
    def __call__(self, kernel: Tensor) -> Tensor:
        refuse_activities(self)
        return as_loss(0.0) if is_low_rank_factor() else self.loss(kernel)
