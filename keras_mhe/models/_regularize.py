"""Regularizes all kernels of an existing model."""

import inspect
import warnings
from typing import Any

import keras

from keras_mhe._keras_internals import forget_compiled_steps
from keras_mhe.kernels._model import (
    LayerFilter,
    ModelKernel,
    check_model,
    find_kernels,
    layer_predicate,
    other_weights,
    replaceable_layers,
)
from keras_mhe.kernels._outputs import output_layers
from keras_mhe.kernels._skip_reasons import unsupported_reason
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.models._assign import (
    assign_regularizer,
    regularizer_of,
    rollback_on_error,
    sum_of_terms,
)
from keras_mhe.models._many_neurons import MANY_NEURONS, SAMPLE
from keras_mhe.models._plan import WRAPPED, Plan, plan_kernel, skip_partial_layers
from keras_mhe.models._rebuild import rebuild_with, strategy_scope
from keras_mhe.models._saved import SavedRegularizer, survives_saving
from keras_mhe.models._table import Row, Table
from keras_mhe.regularizers._base import HypersphericalRegularizer, terms_of
from keras_mhe.regularizers._mhe import MHE, HalfSpaceMHE


def _check_regularizer(regularizer: Any, name: str) -> Any:
    if inspect.isclass(regularizer):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected an instance, "
            f"`{regularizer.__name__}()`, not the class. Received: {name}={regularizer!r}"
        )
    regularizer = keras.regularizers.get(regularizer)
    energies = [
        term for term in terms_of(regularizer) if isinstance(term, HypersphericalRegularizer)
    ]
    if regularizer is not None and not energies:
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected a regularizer of keras_mhe, its sum "
            f"with regularizers of Keras, or None. Received: {name}={regularizer!r}"
        )
    if len(energies) > 1 and any(energy.stateful for energy in energies):
        raise ValueError(
            f"Argument `{name}` may contain only one energy if it learns. To add a second one, "
            "call `regularize` on the `.model` of the first table. "
            f"Received: {name}={regularizer!r}"
        )
    return regularizer


def _plans(
    model: keras.Model,
    kernels: list[ModelKernel],
    where: LayerFilter,
    outputs: Any,
    regularizers: dict[str, Any],
) -> list[Plan]:
    """A plan for each kernel."""
    selected = layer_predicate(where, kernels)
    replaceable = {id(layer) for layer in replaceable_layers(model)}
    defaults = inspect.signature(regularize).parameters
    plans = []
    for found in kernels:
        role = "output" if found.belongs_to(outputs) else "hidden"
        if selected(found):
            plan = plan_kernel(
                found,
                role,
                regularizers[role],
                is_default=regularizers[role] is defaults[role].default,
                requested=where is not None,
                replaceable=replaceable,
            )
        else:
            plan = Plan(found, role, "not selected by `where`")
        plans.append(plan)
    return skip_partial_layers(plans)


def _wrappers(plans: list[Plan]) -> dict[int, HypersphericalRegularization]:
    """New wrappers for the layers that need them, by the id of the layer."""
    wrappers = {}
    for plan in plans:
        owner = plan.found.owners[0]
        if plan.wrap and id(owner) not in wrappers:
            wrappers[id(owner)] = HypersphericalRegularization(
                owner, sum_of_terms(plan.new), name=owner.name, trainable=owner.trainable
            )
    return wrappers


def _attach_wrappers(kernels: list[ModelKernel]) -> None:
    """Lets wrappers regularize their kernels again if another model has replaced them."""
    for found in kernels:
        if isinstance(found.owners[0], HypersphericalRegularization):
            found.owners[0].attach()


def _expected_in_config(plan: Plan) -> SavedRegularizer:
    """The place in the config of the model where the regularizer of a kernel should be."""
    found = plan.found
    if plan.new and plan.wrap:
        # The wrapper has the name of the layer.
        return SavedRegularizer(found.owners[:1], "regularizer", sum_of_terms(plan.new))
    if not plan.new or found.kernel.factors:
        # With LoRA the config contains it, but Keras assigns it to both factors after loading.
        return SavedRegularizer([], "", None)
    return SavedRegularizer(found.owners, found.kernel.argument, regularizer_of(found.kernel))


def _row(plan: Plan, saved: bool) -> Row:
    found, note = plan.found, plan.note
    if plan.new and not saved:
        note = "; ".join([*filter(None, [note]), "not saved: call `regularize` after loading"])
    groups, dimension, neurons = plan.counts or (None, None, None)
    return Row(
        layer=found.path,
        kernel=found.name,
        shape=found.kernel.shape,
        groups=groups,
        dimension=dimension,
        neurons=neurons,
        role=plan.role,
        action="regularized" if plan.new else "skipped",
        regularizer=sum_of_terms(plan.new + plan.kept)
        if plan.wrap
        else regularizer_of(found.kernel),
        saved=saved,
        note=note,
    )


def _rows(model: keras.Model, plans: list[Plan]) -> list[Row]:
    """A row for each kernel, and one for each other weight with two or more axes."""
    saved = survives_saving(model, [_expected_in_config(plan) for plan in plans])
    rows = [_row(plan, known) for plan, known in zip(plans, saved, strict=True)]
    others = other_weights(model, [plan.found for plan in plans])
    return rows + [
        Row(path, weight.name, tuple(weight.shape), note=unsupported_reason(weight.name))
        for path, weight in others
    ]


def _check_any_regularized(model: keras.Model, plans: list[Plan]) -> None:
    if any(plan.new or plan.note == WRAPPED for plan in plans):
        return
    # One kernel for each reason.
    first = {plan.note: plan.found for plan in reversed(plans)}
    reasons = [f"{found.path}/{found.name}: {note}" for note, found in reversed(first.items())]
    raise ValueError(
        f"No kernel of the model can be regularized ({'; '.join(reasons) or 'it has none'}). "
        f"Received: model={model!r}"
    )


def _warning_of_many_neurons(plans: list[Plan]) -> str:
    """A sentence that starts with a space if the user's own energies take long, or ""."""
    slow = [plan.found.path for plan in plans if plan.new and plan.slow]
    if not slow:
        return ""
    more = f" and {len(slow) - 4} more" if len(slow) > 4 else ""
    sentence = (
        f"More than {MANY_NEURONS} neurons: all pairs take long in each training step of "
        f"{', '.join(slow[:4])}{more}."
    )
    warnings.warn(f"{sentence} `MHE(sample={SAMPLE})` is faster.", stacklevel=3)
    return f" {sentence}"


def regularize(
    model: keras.Model,
    hidden: keras.Regularizer | None = HalfSpaceMHE(1.0),  # noqa: B008
    output: keras.Regularizer | None = MHE(10.0),  # noqa: B008
    where: LayerFilter = None,
) -> Table:
    """Adds an energy to every kernel of an existing model, in place.

    `loss += sum over kernels of factor * energy(neurons)`. A kernel counts once, even if its layer
    is called several times. The axes and groups of neurons are those of each layer, as in
    `HypersphericalRegularization`.

    Regularizers of Keras stay on the kernel. An existing energy of this package is replaced, so a
    second call changes the factor. Weights, optimizer and `compile` settings do not change, and
    the next `fit` includes the energies. A frozen kernel adds nothing while it is frozen. If a
    layer has LoRA, its effective kernel is regularized. Kernels of DepthwiseConv are skipped unless
    `where` selects their layer. Quantized kernels and kernels of a single neuron are always
    skipped.

    If a kernel has more than 4,096 neurons in a group, the default regularizers use random groups
    of 1,024 neurons, `sample=1024`: all pairs would take longer than most training steps. A
    regularizer that you pass stays as it is, and a warning says which kernels take long.

    A regularizer that learns (`CoMHE(projection="angle")`, `MHP()`, ...) needs a wrapper around
    each layer. In this case the given model keeps its graph, and `.model` of the returned table is
    a new model with the same layers and weights, inside wrappers. Train the new model.

    Args:
        model: a functional, Sequential or subclassed model. A subclassed model must be built. A
            Sequential model that is not built gets its energies when it is built.
        hidden: regularizer of this package for the kernels of hidden layers, or its sum with
            regularizers of Keras. None means that these kernels stay as they are.
        output: the same for output layers. These are the layers whose neurons become an output of
            the model, directly or through activations, flattening, reshaping and other operations
            with one input and no weights.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers.

    Returns:
        A `Table`, which prints as text. Each row of `rows` contains what was done to a kernel or
        why it was skipped, and whether a saved model keeps the regularizer. `model` is the model to
        train.

    Raises:
        TypeError, ValueError: if an argument has the wrong type, the model is not built, `where`
            contains a name that no layer has, or there is no kernel to regularize. The model does
            not change in these cases.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS: half
    space and factor 1 in hidden layers, full space and factor 10 in the output layer.

    Examples:
        >>> import keras
        >>> from keras_mhe import regularize
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
        >>> table = regularize(model)
        >>> len(model.losses)
        36
    """
    check_model(model)
    regularizers = {
        "hidden": _check_regularizer(hidden, "hidden"),
        "output": _check_regularizer(output, "output"),
    }
    kernels = find_kernels(model)
    outputs, unknown = output_layers(model)
    plans = _plans(model, kernels, where, outputs, regularizers)
    _check_any_regularized(model, plans)
    many_neurons = _warning_of_many_neurons(plans)
    regularized = [plan for plan in plans if plan.new]
    title = f"Kernels regularized: {len(regularized)} of {len(plans)}."
    with rollback_on_error(kernels):
        for plan in regularized:
            terms = plan.kept if plan.wrap else plan.new + plan.kept
            assign_regularizer(plan.found, sum_of_terms(terms))
        new = model
        if any(plan.wrap for plan in regularized):
            with strategy_scope(model):
                wrappers = _wrappers(plans)
            new, warning = rebuild_with(model, lambda layer: wrappers.get(id(layer), layer))
            title += " Train the `.model` of this table: it has wrappers around the same layers."
            title += warning
    _attach_wrappers(kernels)
    forget_compiled_steps(model)
    title += many_neurons
    if unknown:
        title += f" The output layers of {unknown} are unknown: all its kernels count as hidden."
    return Table(new, _rows(new, plans), title)
