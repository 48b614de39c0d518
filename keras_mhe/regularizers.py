"""Regularizers of the hyperspherical energy, and the sum of any two."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mhe.axes import check_axes, neuron_matrix
from keras_mhe.energy import energy_of
from keras_mhe.lora import is_low_rank_factor
from keras_mhe.potentials import check_nonnegative, check_potential, potential_of
from keras_mhe.sampling import check_sample, sampled_energy


def as_loss(value: Any) -> Any:
    """Casts to the dtype in which Keras adds up losses, whatever that of the kernel."""
    return keras.ops.cast(value, keras.config.floatx())


class Addable(keras.Regularizer):
    """A regularizer that adds to any other, on either side."""

    def __add__(self, other: Any) -> "RegularizerSum":
        if not isinstance(other, keras.Regularizer):
            return NotImplemented
        return RegularizerSum([self, other])

    def __radd__(self, other: Any) -> "RegularizerSum":
        if not isinstance(other, keras.Regularizer):
            return NotImplemented
        return RegularizerSum([other, self])

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.get_config())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_mhe")
class RegularizerSum(Addable):
    """Sum of regularizers: `loss = r_1(kernel) + r_2(kernel) + ...`.

    Made by `+` between two Keras regularizers of which at least one is from this package.

    Args:
        regularizers: sequence of at least one `keras.Regularizer`; sums among them are opened.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> both = HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4)
        >>> layer = keras.layers.Conv2D(64, 3, kernel_regularizer=both)
    """

    def __init__(self, regularizers: Sequence[keras.Regularizer]) -> None:
        self.regularizers: list[keras.Regularizer] = []
        for term in regularizers:
            if not isinstance(term, keras.Regularizer):
                raise TypeError(
                    "Invalid value for argument `regularizers`. Expected instances of "
                    f"`keras.Regularizer`. Received: {term!r}"
                )
            self.regularizers += terms_of(term)
        if not self.regularizers:
            raise ValueError(
                "Invalid value for argument `regularizers`. Expected at least one. "
                f"Received: regularizers={regularizers!r}"
            )

    def __call__(self, kernel: Any) -> Any:
        return sum(as_loss(regularizer(kernel)) for regularizer in self.regularizers)

    def get_config(self) -> dict[str, Any]:
        return {"regularizers": [keras.regularizers.serialize(r) for r in self.regularizers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RegularizerSum":
        return cls([keras.regularizers.get(term) for term in config["regularizers"]])

    def __repr__(self) -> str:
        return " + ".join(repr(regularizer) for regularizer in self.regularizers)


def terms_of(regularizer: Any) -> list[Any]:
    """The regularizers of which one is the sum; [] for None."""
    if regularizer is None:
        return []
    return regularizer.regularizers if isinstance(regularizer, RegularizerSum) else [regularizer]


class HypersphericalRegularizer(Addable):
    """Base of the regularizers that weigh one energy of the directions of neurons.

    `loss = factor * energy(neurons)`. What learns beside the kernel (a projection, a pole) is
    state, kept by the layer wrapper; a bare regularizer has none.

    Args:
        factor: as in `MHE`.
        neuron_axis: as in `MHE`.
        groups: as in `MHE`.
    """

    def __init__(
        self, factor: float, neuron_axis: int | Sequence[int] | None, groups: int | None
    ) -> None:
        self.factor = check_nonnegative(factor, "factor")
        axes, count = check_axes(neuron_axis, groups)
        # A list, as JSON has it, and not the caller's, who may change it.
        self.neuron_axis = list(axes) if isinstance(neuron_axis, Sequence) else neuron_axis
        self.groups = None if groups is None else count

    @property
    def learner(self) -> str | None:
        """The call that makes what learns beside the kernel; None if nothing does."""
        return None

    def state_shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what learns, for neurons of so many coordinates; {} for nothing."""
        return {}

    def advanced(self, matrix: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The state after a training step in which the neurons were those of the matrix."""
        return state

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        """The energy of a matrix of shape `(d, N)` or `(groups, d, N)`, a scalar tensor."""
        raise NotImplementedError

    def loss(self, kernel: Any) -> Any:
        """The weighted energy of a kernel, whatever variable it comes from."""
        if self.learner is not None:
            raise ValueError(
                f"{self.learner} learns while the layer trains, and a bare regularizer keeps "
                "nothing. Wrap the layer in place of `kernel_regularizer`: `keras_mhe."
                f"HypersphericalRegularization(keras.layers.Dense(64), {self.learner})`. "
                f"Received: {self!r}"
            )
        matrix = neuron_matrix(kernel, self.neuron_axis, self.groups)
        return as_loss(self.factor * self.energy(matrix, {}))

    def __call__(self, kernel: Any) -> Any:
        return as_loss(0.0) if is_low_rank_factor(kernel) else self.loss(kernel)


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHE(HypersphericalRegularizer):
    """Minimum hyperspherical energy: pushes the directions of a layer's neurons apart.

    `loss = factor * mean over i != j of |u_i - u_j|^(-s)`, `u_i` the neurons (columns of the
    kernel) on the unit sphere; see `hyperspherical_energy` for `s = 0`, angles and half space.

    The loss does not depend on norms: use it beside weight decay, as the papers do, with
    `MHE(1.0) + keras.regularizers.L2(5e-4)`.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight of the energy in the loss, zero or more. The papers use 1 in hidden layers
            (half space) and 10 in the output layer (full space).
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: also repel the mirror images of the neurons: for layers in which a neuron and
            its negative are redundant. `HalfSpaceMHE` is the short form.
        neuron_axis: axis or axes of the kernel that index neurons; `None` is the last one, right
            for Dense and Conv. Transposed convolutions: -2; Embedding: 0.
        groups: number of equal, contiguous groups of neurons which compete only among
            themselves: the `groups` of a convolution, 4 for an LSTM, 3 for a GRU. `None` is 1.
            Within `HypersphericalRegularization` and `regularize`, `None` is what the layer says,
            for `neuron_axis` too.
        sample: at every step, neurons meet only within random groups of so many, drawn anew as
            soon as the kernel has changed. The loss is an unbiased estimate in time and memory
            `O(N * sample)`: for layers of tens of thousands of neurons. `None`, or a number not
            below that of the neurons: all pairs, exactly.
        softening: distance below which the potential goes on as a straight line in the cosine, so
            that training does not blow up; `"auto"`, or 0 for the singular potential.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit `neuron_axis` or `groups`.
        NotImplementedError: for second derivatives of an energy that is sampled or, as it has many
            neurons, computed by panels.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import MHE
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MHE(10.0, s=0))
        >>> layer.build((None, 32))
        >>> len(layer.losses)
        1
    """

    def __init__(
        self,
        factor: float = 1.0,
        s: float = 2.0,
        *,
        distance: str = "euclidean",
        half_space: bool = False,
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
        sample: int | None = None,
        softening: float | str = "auto",
    ) -> None:
        super().__init__(factor, neuron_axis, groups)
        self.s, self.distance, self.half_space, self.softening = check_potential(
            s, distance, half_space, softening
        )
        self.sample = check_sample(sample)

    def energy(self, matrix: Any, state: dict[str, Any]) -> Any:
        potential = potential_of(matrix, self.s, self.distance, self.half_space, self.softening)
        if self.sample is None:
            return energy_of(matrix, potential)
        return sampled_energy(matrix, potential, self.sample)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "s": self.s,
            "distance": self.distance,
            "half_space": self.half_space,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "sample": self.sample,
            "softening": self.softening,
        }


@keras.saving.register_keras_serializable(package="keras_mhe")
class HalfSpaceMHE(MHE):
    """Minimum hyperspherical energy in half space: `MHE` with `half_space=True`.

    `loss = factor * mean over the 2N(2N - 1) ordered pairs of the points u_i and -u_i of
    |p - q|^(-s)`: neurons repel each other's mirror images too, since in a hidden layer a neuron
    and its negative carry the same information. The papers' choice for hidden layers.

    It turns a kernel of shape `(..., N)`, a neuron a column, into a scalar without unit.

    Args:
        factor: weight of the energy in the loss, zero or more. The papers use 1 in hidden layers.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        neuron_axis: axis or axes of the kernel that index neurons, as in `MHE`; `None` is the last.
        groups: number of equal, contiguous groups of neurons which compete only among themselves,
            as in `MHE`; `None` is 1.
        sample: size of the random groups in which neurons meet, as in `MHE`; `None` is all pairs.
        softening: distance below which the potential goes on as a straight line, as in `MHE`.

    Raises:
        TypeError, ValueError: at once for an argument of the wrong type or out of range; at the
            first call for a kernel that does not fit `neuron_axis` or `groups`.
        NotImplementedError: for second derivatives, as in `MHE`.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> decay = keras.regularizers.L2(5e-4)
        >>> layer = keras.layers.Conv2D(64, 3, kernel_regularizer=HalfSpaceMHE(1.0) + decay)
    """

    def __init__(
        self,
        factor: float = 1.0,
        s: float = 2.0,
        *,
        distance: str = "euclidean",
        neuron_axis: int | Sequence[int] | None = None,
        groups: int | None = None,
        sample: int | None = None,
        softening: float | str = "auto",
    ) -> None:
        super().__init__(
            factor,
            s,
            distance=distance,
            half_space=True,
            neuron_axis=neuron_axis,
            groups=groups,
            sample=sample,
            softening=softening,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["half_space"]
        return config
