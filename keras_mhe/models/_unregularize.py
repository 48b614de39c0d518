"""Removes the energies from a model."""

from typing import Any

import keras

from keras_mhe._keras_internals import forget_compiled_steps, nested_layers
from keras_mhe._text_tables import names_by_reason
from keras_mhe.kernels._model import ModelKernel, check_model, find_kernels, replaceable_layers
from keras_mhe.kernels._outputs import output_layers
from keras_mhe.kernels._roles import role_of
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.layers._assigned import is_wrapped, regularizer_of
from keras_mhe.models._assign import assign_regularizer, rollback_on_error
from keras_mhe.models._rebuild import rebuild_with
from keras_mhe.models._table import Row, Table
from keras_mhe.models._terms import sum_of_terms
from keras_mhe.regularizers._attention import is_energy
from keras_mhe.regularizers._base import terms_of


def _still_needed(model: keras.Model) -> str:
    """A sentence for each class of this package that a saved model would contain, or ""."""

    def is_own(part: Any) -> bool:
        return type(part).__module__.startswith("keras_mhe.")

    found = [
        (layer.name, type(part).__name__)
        for layer in nested_layers(model)
        for part in ([layer] if is_own(layer) else vars(layer).values())
        if is_own(part)
    ]
    reason = " A saved model loads only with keras_mhe, because of"
    # An attribute may occur under two names.
    once = dict.fromkeys((layer, f"{reason} {name}") for layer, name in found)
    return "".join(names_by_reason(list(once)))


def unregularize(model: keras.Model) -> Table:
    """Removes the energies of this package and their wrappers from a model.

    Other regularizers and all weights stay. This includes regularizers such as L2 that `regularize`
    added, because they do not tell who added them; a factor of zero switches them off, as in
    `regularize(model, keras.regularizers.L2(0.0))`.

    The `.model` of the table can be saved to a file that loads without this package. If several
    regularizers stay on a kernel, they become one `keras.regularizers.L1L2` if they are L1 and L2.
    Any other sum needs this package, and so do its other layers and initializers. The title of the
    table names them.

    Args:
        model: a functional, Sequential or subclassed model, as in `regularize`.

    Returns:
        A `Table` of the kernels that had an energy. `model` is the given model; if layers were
        inside wrappers, it is a new model with the same layers without wrappers.

    Raises:
        TypeError, ValueError: if the argument is no model, or the model is not built.

    Examples:
        >>> import keras
        >>> from keras_mhe import regularize, unregularize
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> table = regularize(model)
        >>> table = unregularize(model)
        >>> model.losses
        []
    """
    check_model(model)
    replaceable = {id(layer) for layer in replaceable_layers(model)}
    kernels, rows = find_kernels(model), []
    outputs, _ = output_layers(model)

    def add_row(found: ModelKernel, action: str, regularizer: Any, note: str = "") -> None:
        role = role_of(found, outputs)
        named = (found.path, found.name, found.kernel.shape)
        rows.append(Row(*named, role=role, action=action, regularizer=regularizer, note=note))

    def unwrap(layer: Any) -> Any:
        while isinstance(layer, HypersphericalRegularization):
            layer = layer.layer
        return layer

    with rollback_on_error(kernels):
        for found in kernels:
            wrapped = any(isinstance(o, HypersphericalRegularization) for o in found.owners)
            outermost = isinstance(found.owners[0], HypersphericalRegularization)
            if wrapped and not (outermost and id(found.owners[0]) in replaceable):
                note = "wrapped where the layer is created: remove the wrapper there"
                add_row(found, "skipped", regularizer_of(found.kernel), note)
                continue
            terms = terms_of(regularizer_of(found.kernel))
            others = [term for term in terms if not is_energy(term)]
            if len(others) < len(terms) or wrapped or is_wrapped(found.kernel):
                kept = sum_of_terms(others)
                add_row(found, "removed", kept)
                assign_regularizer(found, kept)
        new, warning = rebuild_with(model, unwrap)
    forget_compiled_steps(model)
    removed = sum(row.action == "removed" for row in rows)
    title = f"Kernels whose energy was removed: {removed}.{warning}{_still_needed(new)}"
    return Table(new, rows, title)
