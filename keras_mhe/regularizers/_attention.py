"""One regularizer for all projections of an attention layer."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mhe._arguments import check_integer
from keras_mhe._backend import outside_torch_graphs
from keras_mhe._keras_internals import is_low_rank_factor
from keras_mhe._typing import Tensor
from keras_mhe.energies._neurons import neuron_matrix
from keras_mhe.regularizers._base import (
    Addable,
    HypersphericalRegularizer,
    as_loss,
    refuse_activities,
)


@keras.saving.register_keras_serializable(package="keras_mhe")
class AttentionEnergy(Addable):
    """Regularizes all projections of `MultiHeadAttention` or `GroupQueryAttention`.

    `loss = regularizer(neurons)` for every projection. These layers use one regularizer for all
    their kernels, which have different neuron axes. The kernels of queries, keys and values have
    the shape `(inputs, heads, size)`, and the last two axes index neurons. The kernel of the output
    has the shape `(heads, size, ...)`, and the other axes index neurons. The shape of a kernel
    determines its kind.

    Args:
        regularizer: a regularizer of this package that is not stateful. Its own `neuron_axis` and
            `groups` have no effect.
        heads: the possible pairs `(heads, size)` in the shapes of the layer's kernels.

    Raises:
        TypeError, ValueError: if `regularizer` is not a regularizer of this package, or if `heads`
            does not contain pairs of positive integers. At a call, also if the shape of a kernel
            fits both kinds or neither.

    Source: this package defines which axes index neurons; `regularizer` defines the energy.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> from keras_mhe.regularizers import AttentionEnergy
        >>> energy = AttentionEnergy(HalfSpaceMHE(1.0), heads=[(4, 16)])
        >>> layer = keras.layers.MultiHeadAttention(4, 16, kernel_regularizer=energy)
    """

    def __init__(
        self, regularizer: HypersphericalRegularizer, heads: Sequence[Sequence[int]]
    ) -> None:
        if not isinstance(regularizer, HypersphericalRegularizer):
            raise TypeError(
                "Invalid value for argument `regularizer`. Expected a regularizer of keras_mhe. "
                f"Received: regularizer={regularizer!r}"
            )
        self.regularizer = regularizer
        self.heads = [
            [
                check_integer(size, "heads", least=1, expected="pairs of positive integers")
                for size in pair
            ]
            for pair in heads
        ]

    def neuron_axis(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The axes that index neurons in a projection's kernel of this shape."""
        first, last = list(shape[:2]) in self.heads, list(shape[-2:]) in self.heads
        if first == last or len(shape) < 3:
            raise ValueError(
                "The shape of a kernel must be either (inputs, heads, size) or "
                "(heads, size, outputs). "
                f"Received: kernel.shape={tuple(shape)}, heads={self.heads}"
            )
        return (-2, -1) if last else tuple(range(2, len(shape)))

    def loss(self, kernel: Tensor) -> Tensor:
        """The weighted energy of a kernel."""
        matrix = neuron_matrix(kernel, self.neuron_axis(kernel.shape))
        return self.regularizer.weighted_energy(matrix, {}, self.regularizer.current_factor)

    @outside_torch_graphs
    def __call__(self, kernel: Tensor) -> Tensor:
        refuse_activities(self)
        return as_loss(0.0) if is_low_rank_factor() else self.loss(kernel)

    def get_config(self) -> dict[str, Any]:
        return {
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "heads": self.heads,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttentionEnergy":
        return cls(keras.regularizers.get(config["regularizer"]), config["heads"])


def head_sizes(layer: Any) -> list[tuple[int, int]]:
    """The pairs `(heads, size)` of an attention layer's kernels."""
    if isinstance(layer, keras.layers.GroupQueryAttention):
        return [
            (layer.num_query_heads, layer.head_dim),
            (layer.num_key_value_heads, layer.head_dim),
        ]
    return [(layer.num_heads, layer.key_dim), (layer.num_heads, layer.value_dim)]


def is_energy(regularizer: Any) -> bool:
    """Whether a regularizer is one of this package, and no sum."""
    return isinstance(regularizer, (HypersphericalRegularizer, AttentionEnergy))
