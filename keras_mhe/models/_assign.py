"""Reads the regularizer of a kernel, and assigns another one."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_mhe._keras_internals import attention_regularizer_attribute
from keras_mhe._typing import Tensor
from keras_mhe.kernels._layer import ATTENTION, Kernel, is_plain
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.layers._kernel_regularizer import own_regularizer
from keras_mhe.models._terms import is_energy, sum_of_terms
from keras_mhe.regularizers._base import as_loss, terms_of


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


def regularizer_of(kernel: Kernel) -> Any:
    """The regularizer of a kernel, without those of wrappers."""
    holder = _holder(kernel)
    if holder is not None:
        own = own_regularizer(holder.regularizer)
        if isinstance(own, EffectiveKernelRegularizer):
            return own.regularizer
        if own is not None or kernel.factors:
            return own
    # The layer is not built yet, or got its regularizer after it was built.
    return getattr(kernel.layer, kernel.argument, None)


def is_wrapped(kernel: Kernel) -> bool:
    """Whether a wrapper regularizes the kernel; it may belong to another model."""
    holder = _holder(kernel)
    return holder is not None and own_regularizer(holder.regularizer) is not holder.regularizer


@contextlib.contextmanager
def rollback_on_error(kernels: list[ModelKernel]) -> Iterator[None]:
    """Restores every regularizer if the block raises."""
    before = []
    for found in kernels:
        kernel = found.kernel
        holders: list[tuple[Any, str]] = [(kernel.layer, kernel.argument)]
        holders += [
            (owner, attention_regularizer_attribute(owner))
            for owner in found.owners
            if isinstance(owner, ATTENTION)
        ]
        weights = [kernel.variable, *kernel.factors]
        holders += [(weight, "regularizer") for weight in weights if is_plain(weight)]
        before += [(*holder, getattr(*holder)) for holder in holders if hasattr(*holder)]
    try:
        yield
    except BaseException:
        for holder, name, value in before:
            with contextlib.suppress(AttributeError):
                setattr(holder, name, value)
        raise


def assign_regularizer(found: ModelKernel, regularizer: Any) -> None:
    """Replaces the regularizer of a kernel, also in the config of its layer."""
    kernel, factors = found.kernel, found.kernel.factors
    for owner in found.owners:
        if isinstance(owner, ATTENTION):
            setattr(owner, attention_regularizer_attribute(owner), regularizer)
    if hasattr(kernel.layer, kernel.argument):
        # The attribute of a custom layer may be read-only: then only the weight gets it.
        with contextlib.suppress(AttributeError):
            setattr(kernel.layer, kernel.argument, regularizer)
    if factors:
        plain = sum_of_terms([term for term in terms_of(regularizer) if not is_energy(term)])
        factors[0].regularizer = (
            plain if plain is regularizer else EffectiveKernelRegularizer(kernel, regularizer)
        )
        factors[1].regularizer = plain
    elif is_plain(kernel.variable):
        kernel.variable.regularizer = regularizer
