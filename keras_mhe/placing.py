"""What regularizes a weight, and putting something else there."""

from typing import Any

import keras

from keras_mhe.attention import AttentionEnergy
from keras_mhe.kernels import ATTENTION, Kernel, is_plain
from keras_mhe.layers import own_regularizer
from keras_mhe.lora import low_rank_factors
from keras_mhe.regularizers import HypersphericalRegularizer, RegularizerSum, as_loss, terms_of
from keras_mhe.sites import Site


def is_energy(regularizer: Any) -> bool:
    """Whether it is one of this package's, not a sum of it with others."""
    return isinstance(regularizer, (HypersphericalRegularizer, AttentionEnergy))


def total(terms: list[Any]) -> Any:
    """Their sum as simply as it can be said: None for none, where possible one of Keras's own."""
    if len(terms) <= 1:
        return terms[0] if terms else None
    norms = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    if all(type(term) in norms for term in terms):
        return keras.regularizers.L1L2(
            l1=sum(float(getattr(term, "l1", 0.0)) for term in terms),
            l2=sum(float(getattr(term, "l2", 0.0)) for term in terms),
        )
    return RegularizerSum(terms)


class _Adapted(keras.Regularizer):
    """Regularizes a kernel with LoRA by what it is in effect, `W + scale * A B`.

    It stands on the factor `A`; the terms that are no energies see that factor, as with Keras.
    """

    def __init__(self, kernel: Kernel, regularizer: Any) -> None:
        self.layer, self.name, self.regularizer = kernel.layer, kernel.name, regularizer

    def __call__(self, factor: Any) -> Any:
        effective = getattr(self.layer, self.name)
        terms = terms_of(self.regularizer)
        return sum(
            term.loss(effective) if is_energy(term) else as_loss(term(factor)) for term in terms
        )


def regularizer_of(kernel: Kernel) -> Any:
    """What regularizes a kernel, wrappers aside."""
    factors = low_rank_factors(kernel.layer, kernel.name)
    if factors:
        first = factors[0].regularizer
        return first.regularizer if isinstance(first, _Adapted) else first
    if is_plain(kernel.variable):
        return own_regularizer(kernel.variable.regularizer)
    return getattr(kernel.layer, kernel.argument, None)


def place(site: Site, regularizer: Any) -> None:
    """Has a kernel regularized by this and nothing else, and its layer's config say so."""
    kernel = site.kernel
    factors = low_rank_factors(kernel.layer, kernel.name)
    for owner in site.owners:
        if isinstance(owner, ATTENTION):
            name = "_kernel_regularizer" if hasattr(owner, "_kernel_regularizer") else None
            setattr(owner, name or "kernel_regularizer", regularizer)
    if hasattr(kernel.layer, kernel.argument):
        setattr(kernel.layer, kernel.argument, regularizer)
    if factors:
        plain = total([term for term in terms_of(regularizer) if not is_energy(term)])
        factors[0].regularizer = plain if plain is regularizer else _Adapted(kernel, regularizer)
        factors[1].regularizer = plain
    elif is_plain(kernel.variable):
        kernel.variable.regularizer = regularizer
