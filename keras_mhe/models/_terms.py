"""The terms of regularizers: which are energies, and which ones a new regularizer replaces."""

import functools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import keras

from keras_mhe.regularizers._attention import AttentionEnergy, is_energy
from keras_mhe.regularizers._base import HypersphericalRegularizer, RegularizerSum

# The norms in each regularizer of Keras that consists of norms.
_NORMS: dict[Any, tuple[str, ...]] = {
    keras.regularizers.L1: ("l1",),
    keras.regularizers.L2: ("l2",),
    keras.regularizers.L1L2: ("l1", "l2"),
}


def is_norm(regularizer: Any) -> bool:
    """Whether a regularizer is one of the norms of Keras."""
    return type(regularizer) in _NORMS


def sum_of_terms(terms: Sequence[Any]) -> Any:
    """The sum of terms in its simplest form: None for no terms, L1L2 of Keras for norms only."""
    if len(terms) <= 1:
        return terms[0] if terms else None
    if all(map(is_norm, terms)):
        return keras.regularizers.L1L2(
            l1=sum(float(getattr(term, "l1", 0.0)) for term in terms),
            l2=sum(float(getattr(term, "l2", 0.0)) for term in terms),
        )
    return RegularizerSum(terms)


def _function(term: Any) -> Any:
    """The function in a term that is a function with fixed arguments, or the term itself."""
    while isinstance(term, functools.partial):
        term = term.func
    return term


def _kinds(term: Any) -> set[Hashable]:
    """What a term is. A new term replaces old ones of the same kind."""
    if is_energy(term):
        return {"energy"}
    if is_norm(term):
        return set(_NORMS[type(term)])
    term = _function(term)
    named = term if hasattr(term, "__qualname__") else type(term)
    return {(named.__module__, named.__qualname__)}


def _split(term: Any, kinds: set[Hashable]) -> list[Any]:
    """A term in parts if only one of its two norms is of one of these kinds."""
    if type(term) is not keras.regularizers.L1L2 or len(_kinds(term) & kinds) != 1:
        return [term]
    both = keras.regularizers.L1(term.l1), keras.regularizers.L2(term.l2)
    return [norm for norm, factor in zip(both, (term.l1, term.l2), strict=True) if factor]


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one.get_config() == other.get_config())
    except Exception:
        # A function has no config, and that of a user's own regularizer may contain anything.
        return False


class MergedTerms(NamedTuple):
    """The terms of a kernel and of a new regularizer.

    Attributes:
        added: the new terms without those that the kernel has already.
        unchanged: the terms of the kernel that equal a new one.
        kept: the terms of the kernel of other kinds than the new ones.
        replaced: the terms of the kernel, or parts of them, that differ from new ones of their
            kind.
    """

    added: list[Any]
    unchanged: list[Any]
    kept: list[Any]
    replaced: list[Any]


def merge_terms(old: Sequence[Any], new: Sequence[Any]) -> MergedTerms:
    """Replaces the terms of a kernel by new ones of the same kind.

    All energies are of one kind, L1L2 is of the kinds L1 and L2, and a function is of the kind of
    its name. Any other term is of the kind of its class.
    """
    kinds = set().union(*map(_kinds, new))
    added, unchanged, kept, replaced = list(new), [], [], []
    for term in old:
        equal = [other for other in added if _equal(term, other)]
        if equal and not is_energy(term):
            unchanged.append(term)
            added = [other for other in added if other is not equal[0]]
            continue
        for part in _split(term, kinds):
            if not _kinds(part) & kinds:
                kept.append(part)
            elif not any(_equal(part, other) for other in new):
                replaced.append(part)
    return MergedTerms(added, unchanged, kept, replaced)


def _bare(term: Any) -> Any:
    return term.regularizer if isinstance(term, AttentionEnergy) else _function(term)


def term_name(term: Any) -> str:
    """The name of the class or function of a term."""
    term = _bare(term)
    return str(getattr(term, "__name__", type(term).__name__))


def short_form(term: Any) -> str:
    """A term as a short text: `MHE(1, scale="position")`, `L2(0.0001)`, or its name."""
    bare, arguments = _bare(term), []
    if isinstance(bare, HypersphericalRegularizer):
        arguments = [f"{bare.factor:g}"]
        # The scale decides what the factor means.
        if getattr(bare, "scale", "energy") != "energy":
            arguments.append(f'scale="{bare.scale}"')
    elif is_norm(bare):
        arguments = [f"{getattr(bare, norm):g}" for norm in _NORMS[type(bare)]]
    return f"{term_name(term)}({', '.join(arguments)})" if arguments else term_name(term)
