"""The rows of the table that `regularize` returns."""

import keras

from keras_mhe.kernels._model import other_weights
from keras_mhe.kernels._skip_reasons import unsupported_reason
from keras_mhe.layers._assigned import regularizer_of
from keras_mhe.models._plan import Plan
from keras_mhe.models._saved import SavedRegularizer, reason_of_loss, survives_saving
from keras_mhe.models._table import Row
from keras_mhe.models._terms import sum_of_terms
from keras_mhe.regularizers._attention import is_energy


def _expected_in_config(plan: Plan) -> SavedRegularizer:
    """The place in the config of the model where the regularizer of a kernel should be."""
    found = plan.found
    if plan.wrap:
        # The wrapper has the name of the layer.
        return SavedRegularizer(found.owners[:1], "regularizer", sum_of_terms(plan.new))
    if not plan.regularized or (found.kernel.factors and any(map(is_energy, plan.new + plan.kept))):
        # With LoRA, Keras assigns the regularizer in the config to both factors after loading.
        return SavedRegularizer([], "", None)
    return SavedRegularizer(found.owners, found.kernel.argument, regularizer_of(found.kernel))


def _row(plan: Plan, saved: bool, why_lost: str) -> Row:
    found, note = plan.found, plan.note
    if plan.regularized and not saved:
        note = "; ".join(filter(None, [note, f"not saved: {why_lost}"]))
    groups, dimension, neurons = plan.counts or (None, None, None)
    return Row(
        layer=found.path,
        kernel=found.name,
        shape=found.kernel.shape,
        groups=groups,
        dimension=dimension,
        neurons=neurons,
        role=plan.role,
        action="regularized" if plan.regularized else "skipped",
        regularizer=sum_of_terms(plan.new + plan.kept)
        if plan.wrap
        else regularizer_of(found.kernel),
        saved=saved,
        note=note,
    )


def rows_of(model: keras.Model, plans: list[Plan], *, energies: bool) -> list[Row]:
    """A row for each kernel, and one for each other weight with two or more axes.

    Args:
        model: the model to train and to save.
        plans: what was done to each kernel.
        energies: whether a regularizer contained an energy.
    """
    expected = [_expected_in_config(plan) for plan in plans]
    saved, why_lost = survives_saving(model, expected), reason_of_loss(expected)
    rows = [_row(plan, known, why_lost) for plan, known in zip(plans, saved, strict=True)]
    for path, weight in other_weights(model, [plan.found for plan in plans]):
        note = unsupported_reason(weight.name) if energies else "neither a kernel nor embeddings"
        rows.append(Row(path, weight.name, tuple(weight.shape), note=note))
    return rows
