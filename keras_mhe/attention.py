"""One regularizer for all projections of an attention layer."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mhe.axes import check_integer, neuron_matrix
from keras_mhe.lora import is_low_rank_factor
from keras_mhe.regularizers import Addable, HypersphericalRegularizer, as_loss


@keras.saving.register_keras_serializable(package="keras_mhe")
class AttentionEnergy(Addable):
    """An energy for `MultiHeadAttention` and `GroupQueryAttention`, which take one regularizer.

    `loss = regularizer(neurons)` for every projection. Those of queries, keys and values have
    kernels of shape `(inputs, heads, size)`, whose neurons are on the last two axes; that of the
    output has one of shape `(heads, size, ...)`, whose neurons are on the others. The shape tells.

    Args:
        regularizer: a regularizer of this package that keeps no state; its own `neuron_axis` and
            `groups` do not count.
        heads: the pairs `(heads, size)` that the layer's kernels may have.

    Raises:
        TypeError, ValueError: at once for what is no regularizer of this package, and for heads
            that are not pairs of positive integers.
        ValueError: at a call, for a kernel of which both or neither may be true.

    Source: this package's own definition of which axes are neurons; the energy is that of
    `regularizer`.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> from keras_mhe.attention import AttentionEnergy
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
                check_integer(size, "heads", least=1, what="pairs of positive integers")
                for size in pair
            ]
            for pair in heads
        ]

    def neuron_axis(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The axes of the neurons in a projection's kernel of this shape."""
        first, last = list(shape[:2]) in self.heads, list(shape[-2:]) in self.heads
        if first == last or len(shape) < 3:
            raise ValueError(
                "The shape of a kernel must tell inputs from heads, (inputs, heads, size) from "
                "(heads, size, outputs). "
                f"Received: kernel.shape={tuple(shape)}, heads={self.heads}"
            )
        return (-2, -1) if last else tuple(range(2, len(shape)))

    def loss(self, kernel: Any) -> Any:
        """The weighted energy of a kernel, whatever variable it comes from."""
        matrix = neuron_matrix(kernel, self.neuron_axis(kernel.shape))
        return as_loss(self.regularizer.factor * self.regularizer.energy(matrix, {}))

    def __call__(self, kernel: Any) -> Any:
        return as_loss(0.0) if is_low_rank_factor(kernel) else self.loss(kernel)

    def get_config(self) -> dict[str, Any]:
        return {
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "heads": self.heads,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttentionEnergy":
        return cls(keras.regularizers.get(config["regularizer"]), config["heads"])


def head_sizes(layer: Any) -> list[tuple[int, int]]:
    """The pairs (heads, size) of an attention layer's kernels."""
    if isinstance(layer, keras.layers.GroupQueryAttention):
        return [
            (layer.num_query_heads, layer.head_dim),
            (layer.num_key_value_heads, layer.head_dim),
        ]
    return [(layer.num_heads, layer.key_dim), (layer.num_heads, layer.value_dim)]
