"""Checks of the regularizers that `regularize` receives."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_mhe._typing import Tensor
from keras_mhe.models._terms import sum_of_terms
from keras_mhe.regularizers._attention import AttentionEnergy, is_energy
from keras_mhe.regularizers._base import HypersphericalRegularizer, terms_of

# What Keras accepts as a regularizer: an instance, a function of a kernel, a name, or None.
Regularizer: TypeAlias = keras.Regularizer | Callable[[Tensor], Tensor] | str | None


@functools.cache
def accepts_functions() -> bool:
    """Whether Keras accepts functions as regularizers of weights, as it does since version 3.15."""
    weight = keras.Variable(0.0)
    try:
        weight.regularizer = accepts_functions
    except ValueError:
        return False
    return True


def check_regularizer(regularizer: Regularizer, name: str) -> Any:
    """Returns a regularizer in its simplest form, or None."""
    if inspect.isclass(regularizer):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected an instance, "
            f"`{regularizer.__name__}()`, not the class. Received: {name}={regularizer!r}"
        )
    try:
        terms = terms_of(keras.regularizers.get(regularizer))
    except (TypeError, ValueError):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected a regularizer, a function of a kernel, "
            f"the name of a regularizer of Keras, or None. Received: {name}={regularizer!r}"
        ) from None
    if any(isinstance(term, AttentionEnergy) for term in terms):
        raise TypeError(
            f"Argument `{name}` must contain the regularizer inside `AttentionEnergy` instead, "
            f"because attention has its own axes. Received: {name}={regularizer!r}"
        )
    # A sum with a function is a `keras.Regularizer`.
    alone = len(terms) == 1 and not isinstance(terms[0], keras.Regularizer)
    if alone and not accepts_functions():
        raise TypeError(
            f"Keras {keras.__version__} accepts no functions as regularizers. Pass an instance of "
            f"a subclass of `keras.Regularizer`. Received: {name}={regularizer!r}"
        )
    energies = [term for term in terms if isinstance(term, HypersphericalRegularizer)]
    if len(energies) > 1 and any(energy.stateful for energy in energies):
        raise ValueError(
            f"Argument `{name}` may contain only one energy if it learns. To add a second one, "
            "call `regularize` on the `.model` of the first table. "
            f"Received: {name}={regularizer!r}"
        )
    return sum_of_terms(terms)


def has_energy(regularizer: Any) -> bool:
    """Whether a regularizer contains an energy of this package."""
    return any(map(is_energy, terms_of(regularizer)))
