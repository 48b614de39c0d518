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
    replaceable_layers,
)
from keras_mhe.kernels._named_axes import NamedAxes, with_named_axes
from keras_mhe.kernels._outputs import output_layers
from keras_mhe.kernels._roles import is_half_space, role_of
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.models._arguments import Regularizer, check_regularizer, has_energy
from keras_mhe.models._assign import assign_regularizer, rollback_on_error
from keras_mhe.models._costs import cheap_samplings, step_cost
from keras_mhe.models._many_neurons import MANY_NEURONS, SAMPLE, Sampling
from keras_mhe.models._plan import WRAPPED, Plan, plan_kernel, skip_partial_layers
from keras_mhe.models._rebuild import rebuild_with, strategy_scope
from keras_mhe.models._rows import rows_of
from keras_mhe.models._table import NOT_SELECTED, Table
from keras_mhe.models._terms import short_form, sum_of_terms
from keras_mhe.regularizers._base import terms_of
from keras_mhe.regularizers._mhe import MHE, HalfSpaceMHE


def _default(role: str) -> Any:
    """The default regularizer of a role. A caller who does not name it gives this very object."""
    return inspect.signature(regularize).parameters[role].default


def _default_for(found: ModelKernel, role: str) -> MHE:
    """The default regularizer of a kernel: that of its role, but in full space for embeddings."""
    default: MHE = _default(role)
    return default if default.half_space == is_half_space(found, role) else MHE(default.factor)


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
    roles = [role_of(found, outputs) for found in kernels]

    def plan(found: ModelKernel, role: str, sampling: Sampling | None = None) -> Plan:
        if not selected(found):
            return Plan(found, role, NOT_SELECTED)
        is_default = regularizers[role] is _default(role)
        return plan_kernel(
            found,
            role,
            _default_for(found, role) if is_default else regularizers[role],
            sampling=sampling,
            requested=where is not None,
            replaceable=replaceable,
        )

    plans = list(map(plan, kernels, roles))
    defaults = {role for role, regularizer in regularizers.items() if regularizer is _default(role)}
    by_default = [each for each in plans if each.regularized and each.role in defaults]
    samplings = cheap_samplings(by_default, step_cost(model, kernels))
    for i, each in enumerate(plans):
        if sampling := samplings.get(id(each.found)):
            plans[i] = plan(each.found, each.role, sampling)
    return skip_partial_layers(plans)


def _wrappers(plans: list[Plan]) -> dict[int, HypersphericalRegularization]:
    """New wrappers for the layers that need them, by the id of the layer."""
    wrappers = {}
    for plan in plans:
        owner = plan.found.owners[0]
        if plan.wrap and id(owner) not in wrappers:
            wrappers[id(owner)] = HypersphericalRegularization(
                owner, sum_of_terms(plan.new), trainable=owner.trainable
            )
    return wrappers


def _attach_wrappers(kernels: list[ModelKernel]) -> None:
    """Lets wrappers regularize their kernels again if another model has replaced them."""
    for found in kernels:
        if isinstance(found.owners[0], HypersphericalRegularization):
            found.owners[0].attach()


def _title(plans: list[Plan], regularizers: dict[str, Any]) -> str:
    """How many kernels are regularized, and by what."""
    regularized = [plan for plan in plans if plan.regularized]
    sentences = [f"Kernels regularized: {len(regularized)} of {len(plans)}."]
    for role, regularizer in regularizers.items():
        if any(plan.role == role for plan in regularized):
            terms = " + ".join(map(short_form, terms_of(regularizer)))
            sentences.append(f"{role.capitalize()} layers: {terms}.")
    defaults = {
        short_form(_default_for(plan.found, plan.role))
        for plan in regularized
        if regularizers[plan.role] is _default(plan.role)
        and plan.found.kernel.attribute == "embeddings"
    }
    sentences += [f"Embeddings: {form}." for form in defaults]
    return " ".join(sentences)


def _why_unchanged(plans: list[Plan], regularizers: dict[str, Any]) -> str:
    """A sentence if the caller asked to leave all selected kernels as they are, or ""."""
    unchanged = [role for role, regularizer in regularizers.items() if regularizer is None]
    selected = {plan.role for plan in plans if plan.note != NOT_SELECTED}
    given = any(r is not None and r is not _default(role) for role, r in regularizers.items())
    if not unchanged or given or not selected <= set(unchanged):
        return ""
    arguments = " and ".join(f"`{role}`" for role in unchanged)
    verb = "are" if len(unchanged) > 1 else "is"
    return f" {arguments} {verb} None: nothing was changed, and existing regularizers stay."


def _check_any_regularized(model: keras.Model, plans: list[Plan]) -> None:
    if any(plan.regularized or plan.note == WRAPPED for plan in plans):
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
    slow = [plan.found.path for plan in plans if plan.slow]
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
    hidden: Regularizer = HalfSpaceMHE(1.0),  # noqa: B008
    output: Regularizer = MHE(10.0),  # noqa: B008
    where: LayerFilter = None,
    axes: NamedAxes = None,
) -> Table:
    """Adds a regularizer to every kernel of an existing model, in place.

    `loss += sum over kernels of regularizer(kernel)`. For the energies of this package, this is
    `factor * energy(neurons)`. A kernel counts once, even if its layer is called several times. The
    axes and groups of neurons are those of each layer, as in `HypersphericalRegularization`.

    The next `fit` includes the regularizers. Weights, optimizer and `compile` settings do not
    change. A second call changes the factor: a regularizer replaces what the kernel has of its own
    kind, and everything else stays. All energies are of one kind, L1L2 is of the kinds L1 and L2, a
    function is of the kind of its name, and any other regularizer is of the kind of its class. A
    frozen kernel adds nothing while it is frozen. Quantized kernels are always skipped.

    A kernel gets an energy only if its neurons can be compared: kernels of DepthwiseConv are
    skipped unless `where` or `axes` names their layer, and kernels of a single neuron are always
    skipped. If a layer has LoRA, the energy is that of its effective kernel. A regularizer without
    an energy, such as L2, acts on all kernels, and on both factors of LoRA, as in Keras.

    Kernels are the kernels of dense, convolutional, recurrent and attention layers, and embeddings.
    Biases and the weights of normalizations are no kernels, and stay as they are.

    The default regularizers use random groups of neurons, `sample=` and `sample_groups=`, where all
    pairs would make a training step more than a quarter longer. This is estimated from the shapes
    of the model, for batches of 32 examples, and each such row says so. A regularizer that you pass
    stays as it is. If it compares all pairs of more than 4,096 neurons, a warning says so.

    A regularizer that learns (`CoMHE(projection="angle")`, `MHP()`, ...) needs a wrapper around
    each layer. In this case the given model keeps its graph, and `.model` of the returned table is
    a new model with the same layers and weights, inside wrappers. Train the new model.

    Args:
        model: a functional, Sequential or subclassed model. A subclassed model must be built. A
            Sequential model that is not built gets its regularizers when it is built.
        hidden: regularizer for the kernels of hidden layers: one of this package, any other
            `keras.Regularizer`, a sum of them, a function of a kernel, or a name such as `"l2"`.
            None means that these kernels stay as they are, with the regularizers that they have.
            If both are None, nothing changes. The default is in full space for `embeddings`,
            because the negative of an embedding means something else.
        output: the same for output layers. These are the layers whose neurons become an output of
            the model, directly or through activations, flattening, reshaping and other operations
            with one input and no weights. If `output` is not given, and `hidden` contains no energy
            of this package, output layers get the same regularizer as hidden layers.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers.
        axes: a dict with the axis or the axes of neurons for names of layers, as in
            `{"quantizer": -1}`. They replace those of the layer, and its neurons become one group.
            They are necessary for energies of `embeddings` in layers that are no
            `keras.layers.Embedding`: these may be rows or columns, so they are skipped otherwise.

    Returns:
        A `Table`, which prints as text. Each row of `rows` contains what was done to a kernel or
        why it was skipped, and whether a saved model keeps the regularizer. `model` is the model to
        train.

    Raises:
        TypeError, ValueError: if an argument has the wrong type, the model is not built, `where` or
            `axes` contains a name that no layer with a kernel has, or there is no kernel to
            regularize. The model does not change in these cases.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS: half
    space and factor 1 in hidden layers, full space and factor 10 in the output layer.

    Examples:
        >>> import keras
        >>> from keras_mhe import regularize
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
        >>> table = regularize(model)
        >>> len(model.losses)
        36
        >>> table = regularize(model, keras.regularizers.L2(1e-4))
        >>> len(model.losses)
        53
    """
    check_model(model)
    regularizers = {
        "hidden": check_regularizer(hidden, "hidden"),
        "output": check_regularizer(output, "output"),
    }
    hidden = regularizers["hidden"]
    if hidden is not None and not has_energy(hidden) and output is _default("output"):
        regularizers["output"] = hidden
    kernels = with_named_axes(find_kernels(model), axes)
    outputs, unknown = output_layers(model)
    plans = _plans(model, kernels, where, outputs, regularizers)
    energies = any(map(has_energy, regularizers.values()))
    title = _title(plans, regularizers)
    if unchanged := _why_unchanged(plans, regularizers):
        return Table(model, rows_of(model, plans, energies=energies), title + unchanged)
    _check_any_regularized(model, plans)
    many_neurons = _warning_of_many_neurons(plans)
    regularized = [plan for plan in plans if plan.regularized]
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
    return Table(new, rows_of(new, plans, energies=energies), title)
