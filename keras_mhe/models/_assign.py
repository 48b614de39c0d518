"""Assigns another regularizer to a kernel."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_mhe._keras_internals import attention_regularizer_attribute
from keras_mhe.kernels._layer import ATTENTION, is_plain
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.layers._assigned import EffectiveKernelRegularizer
from keras_mhe.models._terms import sum_of_terms
from keras_mhe.regularizers._attention import is_energy
from keras_mhe.regularizers._base import terms_of


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
