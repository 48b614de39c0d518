"""What regularizes a weight, and putting something else there."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_mhe.attention import AttentionEnergy
from keras_mhe.kernels import ATTENTION, Kernel, is_plain
from keras_mhe.layers import own_regularizer
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
    if kernel.factors:
        first = kernel.factors[0].regularizer
        return first.regularizer if isinstance(first, _Adapted) else first
    if is_plain(kernel.variable):
        own = own_regularizer(kernel.variable.regularizer)
        if own is not None:
            return own
    # Not built yet, or given to the layer afterwards.
    return getattr(kernel.layer, kernel.argument, None)


def is_bound(kernel: Kernel) -> bool:
    """Whether a wrapper of its layer, in this model or another, regularizes a kernel."""
    weight = kernel.variable
    return is_plain(weight) and own_regularizer(weight.regularizer) is not weight.regularizer


def _attention_argument(layer: Any) -> str:
    private = "_kernel_regularizer"
    return private if hasattr(layer, private) else private.removeprefix("_")


@contextlib.contextmanager
def all_or_nothing(sites: list[Site]) -> Iterator[None]:
    """Puts every regularizer back where it was if an error comes up."""
    before = []
    for site in sites:
        kernel = site.kernel
        holders = [(kernel.layer, kernel.argument)]
        holders += [(o, _attention_argument(o)) for o in site.owners if isinstance(o, ATTENTION)]
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


def place(site: Site, regularizer: Any) -> None:
    """Has a kernel regularized by this and nothing else, and its layer's config say so."""
    kernel, factors = site.kernel, site.kernel.factors
    for owner in site.owners:
        if isinstance(owner, ATTENTION):
            setattr(owner, _attention_argument(owner), regularizer)
    if hasattr(kernel.layer, kernel.argument):
        # A custom layer may not let it be set: then the weight alone has it.
        with contextlib.suppress(AttributeError):
            setattr(kernel.layer, kernel.argument, regularizer)
    if factors:
        plain = total([term for term in terms_of(regularizer) if not is_energy(term)])
        factors[0].regularizer = plain if plain is regularizer else _Adapted(kernel, regularizer)
        factors[1].regularizer = plain
    elif is_plain(kernel.variable):
        kernel.variable.regularizer = regularizer
