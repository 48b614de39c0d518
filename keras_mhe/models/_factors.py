"""The factors of a model's regularizers, as variables that can change between training steps."""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_mhe._keras_internals import nested_layers
from keras_mhe._typing import Tensor
from keras_mhe.kernels._model import LayerFilter, ModelKernel, layer_predicate
from keras_mhe.layers import HypersphericalRegularization, Uniformity
from keras_mhe.layers._assigned import EffectiveKernelRegularizer
from keras_mhe.layers._kernel_regularizer import KernelRegularizer, split_energy
from keras_mhe.regularizers._attention import AttentionEnergy, is_energy
from keras_mhe.regularizers._base import RegularizerSum, as_loss, terms_of


class _Multiple(keras.Regularizer):
    """A regularizer that is no energy, multiplied by a variable."""

    def __init__(self, regularizer: Any, variable: keras.Variable) -> None:
        self.regularizer, self.factor_variable = regularizer, variable

    def __call__(self, weight: Tensor) -> Tensor:
        return self.factor_variable * as_loss(self.regularizer(weight))


def _with_variable(term: Any, variable: keras.Variable) -> Any:
    """The term with a variable as its factor. The term itself may belong to other models."""
    if isinstance(term, _Multiple):
        term = term.regularizer
    if not is_energy(term):
        return _Multiple(term, variable)
    term = copy.copy(term)
    if isinstance(term, AttentionEnergy):
        term.regularizer = _with_variable(term.regularizer, variable)
    else:
        term.factor_variable = variable
    return term


class Factor(NamedTuple):
    """The factor of one regularizer in a model.

    Attributes:
        own: the number with which the regularizer was created; 1 if it is no energy.
        variable: the variable with the factor; None as long as it is a number.
        bind: function that makes a variable the factor; None if the factor is always a variable.
    """

    own: float
    variable: keras.Variable | None
    bind: Callable[[keras.Variable], None] | None = None


class _Holder(NamedTuple):
    """Where a regularizer is: an attribute of an object, or an element of a list."""

    owner: Any
    key: Any

    def get(self) -> Any:
        if isinstance(self.owner, list):
            return self.owner[self.key]
        return getattr(self.owner, self.key, None)

    def replace_term(self, index: int, variable: keras.Variable) -> None:
        terms = list(terms_of(self.get()))
        terms[index] = _with_variable(terms[index], variable)
        new = terms[0] if len(terms) == 1 else RegularizerSum(terms)
        if isinstance(self.owner, list):
            self.owner[self.key] = new
        else:
            setattr(self.owner, self.key, new)


def _factors_in(holder: _Holder, matches: Callable[[Any], bool]) -> Iterator[Factor]:
    """The factors in a regularizer that is no wrapper's."""
    regularizer = holder.get()
    if isinstance(regularizer, KernelRegularizer):
        for i in range(len(regularizer.others)):
            yield from _factors_in(_Holder(regularizer.others, i), matches)
        return
    if isinstance(regularizer, EffectiveKernelRegularizer):
        yield from _factors_in(_Holder(regularizer, "regularizer"), matches)
        return
    for i, term in enumerate(terms_of(regularizer)):
        bare = term.regularizer if isinstance(term, (_Multiple, AttentionEnergy)) else term
        if matches(bare):
            holds = term if isinstance(term, _Multiple) else bare
            variable = getattr(holds, "factor_variable", None)
            own = bare.factor if is_energy(bare) else 1.0
            yield Factor(own, variable, functools.partial(holder.replace_term, i))


def _layers_and_weights(
    layer: Any, owners: tuple[Any, ...], seen: set[int]
) -> Iterator[tuple[tuple[Any, ...], keras.Variable | None]]:
    """The layers within a layer, and each weight once with the layers that contain it."""
    for part in nested_layers(layer, direct=True):
        yield from _layers_and_weights(part, (*owners, part), seen)
    yield owners, None
    for weight in layer.weights:
        if id(weight) not in seen:
            seen.add(id(weight))
            yield owners, weight


def find_factors(
    model: keras.Model, where: LayerFilter, matches: Callable[[Any], bool]
) -> list[Factor]:
    """The factors of the regularizers in a model.

    Args:
        model: a built model.
        where: as in `regularize`.
        matches: whether a regularizer, which is no sum and no wrapper's, has such a factor.
    """
    # Layers are selected like kernels, also those without a kernel.
    no_kernel: Any = None
    parts = [
        (ModelKernel("/".join(owner.name for owner in owners), "", owners, no_kernel), weight)
        for owners, weight in _layers_and_weights(model, (), set())
    ]
    selected = layer_predicate(where, [found for found, _ in parts])
    factors: list[Factor] = []
    for found, weight in parts:
        if not selected(found):
            continue
        if weight is not None:
            factors += _factors_in(_Holder(weight, "regularizer"), matches)
            continue
        layer = found.owners[-1] if found.owners else model
        if isinstance(layer, (HypersphericalRegularization, Uniformity)):
            energy, _ = split_energy(layer.regularizer)
            if matches(energy):
                factors.append(Factor(energy.factor, layer.factor))
    return factors
