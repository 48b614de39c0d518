"""The layer that spreads the points of a batch."""

from typing import Any

import keras

from keras_mhe._backend import outside_torch_graphs
from keras_mhe._typing import Shape, Tensor
from keras_mhe.energies._batch import counted_points
from keras_mhe.layers._factor import FactorVariable
from keras_mhe.regularizers._base import HypersphericalRegularizer, as_loss


def _check_regularizer(regularizer: Any) -> HypersphericalRegularizer:
    energy = keras.regularizers.get(regularizer)
    if not isinstance(energy, HypersphericalRegularizer) or not energy.of_batches:
        raise TypeError(
            "Invalid value for argument `regularizer`. Expected `MHE(...)`, `HalfSpaceMHE(...)` or "
            f"`MHS(...)`. Received: regularizer={regularizer!r}"
        )
    # Each row of a batch is a point, and all of its points repel each other.
    allowed: dict[str, tuple[Any, ...]] = {
        "neuron_axis": (None, 0),
        "groups": (None, 1),
        "sample": (None,),
        "scale": ("energy",),
    }
    for name, values in allowed.items():
        if getattr(energy, name, values[0]) not in values:
            raise ValueError(
                f"Argument `{name}` of a regularizer has no meaning for the points of a batch. "
                f"Received: regularizer={regularizer!r}"
            )
    return energy


@keras.saving.register_keras_serializable(package="keras_mhe")
class Uniformity(FactorVariable, keras.layers.Layer):
    """Spreads the points of a batch on the sphere, such as embeddings. Outputs are the inputs.

    `loss = factor * energy(points)` in training, where the points are the rows of the inputs, on
    the unit sphere. With labels, they are the means of the classes in the batch. `batch_energy`
    documents the energy, and what a batch is on several devices. Outside of training, the layer
    adds no loss.

    Use this layer in place of `activity_regularizer=`. Batches may have any size. A mask of Keras,
    as of `Embedding(mask_zero=True)`, leaves points out; for another mask, call the layer with
    `mask=`.

    Args:
        regularizer: `MHE(...)`, `HalfSpaceMHE(...)` or `MHS(...)`. `MHE(distance="gaussian")` is
            the uniformity loss of Wang and Isola, and `MHS(measure="log")` is KoLeo. The arguments
            `neuron_axis`, `groups`, `sample` and `scale` keep their defaults. The gradient is
            exact, whatever `bounded` is: no step moves points directly.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: floating-point tensor of shape `(batch, ..., d)`.
        labels: the class of each point, or None, as in `batch_energy`.
        mask: which points count, or None, as in `batch_energy`.
        training: whether to add the loss.

    Attributes:
        factor: scalar variable, the weight of the energy. Its initial value is the factor of the
            regularizer. `FactorSchedule` moves it.

    Raises:
        TypeError, ValueError: if the regularizer is none for batches, or has an argument without
            meaning for a batch. At a call, if inputs, labels or mask have wrong types or shapes.

    Source: Wang and Isola (2020), "Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere", ICML, with the energies of Liu et al. (2018).

    Examples:
        >>> import keras
        >>> from keras_mhe import MHE, Uniformity
        >>> model = keras.Sequential([
        ...     keras.Input((64,)),
        ...     keras.layers.Dense(16),
        ...     Uniformity(MHE(1.0)),
        ...     keras.layers.Dense(10),
        ... ])
    """

    def __init__(self, regularizer: keras.Regularizer, **kwargs: Any) -> None:
        # Outputs have the dtype of the inputs. Energies are computed in float32 or wider.
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.regularizer = _check_regularizer(regularizer)
        # The factor of the regularizer has no effect any more.
        self.regularizer.used = True
        self._factor = self.add_weight(
            name="factor",
            shape=(),
            dtype=keras.backend.result_type("float32", keras.config.floatx()),
            initializer=keras.initializers.Constant(self.regularizer.factor),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @outside_torch_graphs
    def _loss(self, features: Tensor, labels: Tensor | None, mask: Tensor | None) -> Tensor:
        points, n = counted_points(features, labels, mask)
        energy = self.regularizer.batch_program(points, n).energy(points)
        return as_loss(self.factor * energy)

    def call(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        if training:
            self.add_loss(self._loss(inputs, labels, mask))
        return inputs

    def compute_output_shape(self, inputs_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        return inputs_shape

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer}
