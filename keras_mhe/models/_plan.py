"""What to do with each kernel of a model, decided before anything changes."""

import copy
from collections import defaultdict
from typing import Any, NamedTuple

import keras

from keras_mhe._typing import Shape
from keras_mhe.kernels._layer import ATTENTION
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason, untrained_reason
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.layers._assigned import regularizer_of
from keras_mhe.models._many_neurons import (
    MANY_NEURONS,
    SAMPLE,
    Sampling,
    expected_neurons,
    of_random_groups,
    takes_all_pairs,
)
from keras_mhe.models._terms import (
    MergedTerms,
    is_norm,
    merge_terms,
    short_form,
    term_name,
)
from keras_mhe.regularizers._attention import AttentionEnergy, head_sizes, is_energy
from keras_mhe.regularizers._base import HypersphericalRegularizer, terms_of

WRAPPED = "already wrapped"
_ADD_TO_WRAPPER = "wrapped: add it to the regularizer of the wrapper"


class Plan(NamedTuple):
    """What to do with one kernel.

    Attributes:
        found: the kernel.
        role: as in `Row`.
        note: as in `Row`.
        regularized: whether the kernel has all regularizers in the end; False if it is skipped.
        new: the regularizers to add.
        kept: the regularizers of the kernel that stay.
        wrap: whether the new regularizers need a wrapper around the layer.
        slow: whether a new regularizer computes all pairs of many neurons.
        counts: groups, dimension and neurons, if known.
    """

    found: ModelKernel
    role: str
    note: str
    regularized: bool = False
    new: list[Any] = []  # noqa: RUF012
    kept: list[Any] = []  # noqa: RUF012
    wrap: bool = False
    slow: bool = False
    counts: tuple[int, int, int] | None = None


def _attention_axes(energy: AttentionEnergy, shape: Shape) -> tuple[int, ...]:
    try:
        return energy.neuron_axis(shape)
    except ValueError:
        raise ValueError(
            f"the shape {shape} does not tell inputs from outputs of the heads; "
            "`keras_mhe.HypersphericalRegularization(layer, ...)` knows the axes of neurons"
        ) from None


def _as_reason(error: Exception) -> str:
    """The message of an error as a reason, without the arguments that the check received."""
    sentence = " ".join(str(error).partition(" Received: ")[0].split()).removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def _for_kernel(
    energy: HypersphericalRegularizer, found: ModelKernel
) -> tuple[Any, tuple[Any, Any]]:
    """The energy with the neuron axes of the kernel, and its axes and groups."""
    kernel = found.kernel
    attention = [owner for owner in found.owners if isinstance(owner, ATTENTION)]
    if energy.neuron_axis is not None and not found.axes_named:
        return energy, (energy.neuron_axis, energy.groups)
    if attention and not found.axes_named:
        shared = AttentionEnergy(energy, head_sizes(attention[0]))
        return shared, (_attention_axes(shared, tuple(kernel.variable.shape)), 1)
    groups = kernel.groups if energy.groups is None else energy.groups
    assert kernel.neuron_axis is not None
    axes = kernel.neuron_axis[0] if len(kernel.neuron_axis) == 1 else list(kernel.neuron_axis)
    if (axes, groups) != (-1, 1) or found.axes_named:
        energy = copy.copy(energy)
        energy.neuron_axis, energy.groups = axes, groups
    return energy, (axes, groups)


def _refusal(regularizer: Any, found: ModelKernel) -> str | None:
    """Why a regularizer that is no energy does not accept a kernel; None if it does."""
    if is_norm(regularizer):
        return None
    kernel = found.kernel
    weights = kernel.factors or ([] if kernel.variable is None else [kernel.variable])
    try:
        for weight in weights:
            regularizer(keras.ops.convert_to_tensor(weight))
    except Exception as error:
        # The code is that of the user. `OrthogonalRegularizer` accepts only two axes.
        sentence = _as_reason(error) or type(error).__name__
        return f"{term_name(regularizer)} does not accept it: {sentence}"
    return None


def _note(found: ModelKernel, terms: MergedTerms, *, sampling: Sampling | None, slow: bool) -> str:
    notes = []
    energies = any(map(is_energy, (*terms.added, *terms.kept)))
    if terms.kept:
        notes.append("in addition to " + ", ".join(map(term_name, terms.kept)))
    if terms.replaced:
        notes.append("replaces " + ", ".join(map(short_form, terms.replaced)))
    if found.kernel.factors:
        notes.append("LoRA: " + ("energy of the effective kernel" if energies else "both factors"))
    elif found.kernel.variable is not None and not found.kernel.variable.trainable:
        notes.append(f"frozen: no {'energy' if energies else 'effect'} until it is trainable")
    if sampling is not None:
        notes.append(f"{sampling} at each step, because all pairs take long")
    elif slow:
        notes.append(f"many neurons: all pairs take long, `MHE(sample={SAMPLE})` is faster")
    return "; ".join(notes)


def plan_kernel(
    found: ModelKernel,
    role: str,
    regularizer: Any,
    *,
    sampling: Sampling | None,
    requested: bool,
    replaceable: set[int],
) -> Plan:
    """What to do with a kernel.

    Args:
        found: the kernel.
        role: `"hidden"` or `"output"`.
        regularizer: the regularizer for kernels of this role, or None.
        sampling: random groups of neurons in place of all pairs, or None. The regularizer is then
            an `MHE`.
        requested: whether the caller selected layers by `where`.
        replaceable: ids of the layers that can be wrapped.
    """

    def skip(reason: str) -> Plan:
        return Plan(found, role, reason)

    terms = terms_of(regularizer)
    energies = [term for term in terms if isinstance(term, HypersphericalRegularizer)]
    if any(isinstance(owner, HypersphericalRegularization) for owner in found.owners):
        mode = found.kernel.quantization
        if mode is not None:
            return skip(f"quantized, {mode}: its wrapper has no effect")
        return skip(WRAPPED if energies or not terms else _ADD_TO_WRAPPER)
    if regularizer is None:
        return skip(f"no regularizer for {role} layers")
    reason = untrained_reason(found.kernel)
    if energies:
        named = all(energy.neuron_axis is not None for energy in energies)
        requested = requested or found.axes_named
        reason = skip_reason(found.kernel, requested=requested, axes_named=named)
    if reason is not None:
        return skip(reason)

    new, slow, counts, wrap = [], False, None, False
    for term in [of_random_groups(regularizer, sampling)] if sampling else terms:
        if isinstance(term, HypersphericalRegularizer):
            try:
                adapted, axes = _for_kernel(term, found)
                if found.kernel.shape is not None:
                    counts = neuron_counts(found.kernel.shape, *axes)
                    term.state_shapes(counts[1])
            except ValueError as error:
                return skip(_as_reason(error))
            size = expected_neurons(found.kernel) if counts is None else counts[-1]
            slow = slow or (size > MANY_NEURONS and takes_all_pairs(term))
            wrap = term.stateful
            if wrap and id(found.owners[0]) not in replaceable:
                return skip(
                    f"{term.example} learns: wrap the layer where it is created, "
                    "`keras_mhe.HypersphericalRegularization(layer, ...)`"
                )
            # A wrapper finds the neuron axes itself.
            term = term if wrap and not found.axes_named else adapted
        else:
            reason = _refusal(term, found)
            if reason is not None:
                return skip(reason)
        new.append(term)
    merged = merge_terms(terms_of(regularizer_of(found.kernel)), new)
    note = _note(found, merged, sampling=sampling, slow=slow)
    kept = merged.unchanged + merged.kept
    return Plan(found, role, note, True, merged.added, kept, wrap, slow, counts)


def _named_axes(plan: Plan) -> Any:
    """The axes of neurons that the caller named for an energy; None for others."""
    energies = any(map(is_energy, plan.new + plan.kept))
    return plan.found.kernel.neuron_axis if plan.found.axes_named and energies else None


def skip_partial_layers(plans: list[Plan]) -> list[Plan]:
    """Skips all kernels of a layer that must share a regularizer if one of them cannot have it.

    A wrapper regularizes all kernels of a layer, and attention has one regularizer for all.
    """

    def shared(plan: Plan) -> bool:
        return plan.wrap or any(isinstance(owner, ATTENTION) for owner in plan.found.owners)

    skipped, named = {}, defaultdict(set)
    for plan in plans:
        owner = id(plan.found.owners[0])
        if plan.regularized:
            named[owner].add(_named_axes(plan))
        elif plan.found.kernel.can_have_energy:
            skipped[owner] = plan
    result = []
    for plan in plans:
        owner = id(plan.found.owners[0])
        other = skipped.get(owner)
        if plan.regularized and shared(plan) and (other is not None or len(named[owner]) > 1):
            note = f"`axes` must name the whole layer, {plan.found.owners[0].name}"
            if other is not None:
                note = f"all kernels of the layer or none; {other.found.name}: {other.note}"
            plan = Plan(plan.found, plan.role, note)
        result.append(plan)
    return result
