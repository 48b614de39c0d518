"""The regularizer that a kernel has, wherever it was given."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_mhe._typing import Tensor
from keras_mhe.energies._neurons import check_axes
from keras_mhe.kernels._layer import Kernel, is_plain
from keras_mhe.layers._kernel_regularizer import KernelRegularizer, own_regularizer
from keras_mhe.regularizers._attention import AttentionEnergy, is_energy
from keras_mhe.regularizers._base import HypersphericalRegularizer, as_loss, terms_of


class EffectiveKernelRegularizer(keras.Regularizer):
    """Regularizes the effective kernel `W + scale * A B` of a layer with LoRA.

    It is assigned to the factor `A`. Terms that are no energies regularize `A`, as in Keras.
    """

    def __init__(self, kernel: Kernel, regularizer: Any) -> None:
        self.layer, self.name, self.regularizer = kernel.layer, kernel.attribute, regularizer

    def __call__(self, factor: Tensor) -> Tensor:
        effective = getattr(self.layer, self.name)
        terms = terms_of(self.regularizer)
        return sum(
            term.loss(effective) if is_energy(term) else as_loss(term(factor)) for term in terms
        )


def _holder(kernel: Kernel) -> Any:
    """The weight with the energy of a kernel: the factor A of LoRA, or the kernel itself."""
    if kernel.factors:
        return kernel.factors[0]
    return kernel.variable if is_plain(kernel.variable) else None


def _regularizer_in_loss(kernel: Kernel) -> Any:
    """The regularizer in the loss of a kernel, without those of wrappers."""
    holder = _holder(kernel)
    own = None if holder is None else own_regularizer(holder.regularizer)
    return own.regularizer if isinstance(own, EffectiveKernelRegularizer) else own


def regularizer_of(kernel: Kernel) -> Any:
    """The regularizer of a kernel, without those of wrappers, whether it is in the loss or not."""
    own = _regularizer_in_loss(kernel)
    if own is not None or kernel.factors:
        return own
    # The layer is not built yet, or got its regularizer after it was built.
    return getattr(kernel.layer, kernel.argument, None)


def is_wrapped(kernel: Kernel) -> bool:
    """Whether a wrapper regularizes the kernel; it may belong to another model."""
    holder = _holder(kernel)
    return holder is not None and own_regularizer(holder.regularizer) is not holder.regularizer


class AssignedEnergy(NamedTuple):
    """An energy that a kernel has, and the neurons on which it acts.

    Attributes:
        energy: the energy.
        neuron_axis: the axes that index neurons.
        groups: number of groups of neurons.
        by_default: whether the energy uses the last axis and one group because nobody named others.
            A bare regularizer does not know its layer.
    """

    energy: HypersphericalRegularizer
    neuron_axis: tuple[int, ...]
    groups: int
    by_default: bool


def assigned_energies(kernel: Kernel) -> Iterator[AssignedEnergy]:
    """The energies in the loss of a kernel: of wrappers, the outermost first, then its own."""
    holder = _holder(kernel)
    outer = None if holder is None else holder.regularizer
    while isinstance(outer, KernelRegularizer):
        yield AssignedEnergy(outer.energy, *check_axes(outer.neuron_axis, outer.groups), False)
        outer = outer.own
    for term in terms_of(_regularizer_in_loss(kernel)):
        if isinstance(term, HypersphericalRegularizer):
            by_default = term.neuron_axis is None and term.groups is None
            yield AssignedEnergy(term, *check_axes(term.neuron_axis, term.groups), by_default)
        elif isinstance(term, AttentionEnergy) and kernel.shape is not None:
            yield AssignedEnergy(term.regularizer, term.neuron_axis(kernel.shape), 1, False)
