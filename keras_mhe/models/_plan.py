"""What to do with each kernel of a model, decided before anything changes."""

import copy
from typing import Any, NamedTuple

from keras_mhe._typing import Shape
from keras_mhe.kernels._layer import ATTENTION
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.models._assign import is_energy, regularizer_of
from keras_mhe.models._many_neurons import (
    MANY_NEURONS,
    SAMPLE,
    expected_neurons,
    has_many_neurons,
    of_random_groups,
    takes_all_pairs,
)
from keras_mhe.regularizers._attention import AttentionEnergy, head_sizes
from keras_mhe.regularizers._base import HypersphericalRegularizer, terms_of

WRAPPED = "already wrapped"


class Plan(NamedTuple):
    """What to do with one kernel.

    Attributes:
        found: the kernel.
        role: as in `Row`.
        note: as in `Row`.
        new: the regularizers to add; [] if the kernel is skipped.
        kept: the regularizers of the kernel that stay.
        wrap: whether the new regularizers need a wrapper around the layer.
        slow: whether a new regularizer computes all pairs of many neurons.
        counts: groups, dimension and neurons, if known.
    """

    found: ModelKernel
    role: str
    note: str
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


def _as_reason(error: ValueError) -> str:
    """The message of an error as a reason, without the arguments that the check received."""
    sentence = str(error).partition(" Received: ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def _for_kernel(
    energy: HypersphericalRegularizer, found: ModelKernel
) -> tuple[Any, tuple[Any, Any]]:
    """The energy with the neuron axes of the kernel, and its axes and groups."""
    kernel = found.kernel
    attention = [owner for owner in found.owners if isinstance(owner, ATTENTION)]
    if energy.neuron_axis is not None:
        return energy, (energy.neuron_axis, energy.groups)
    if attention:
        shared = AttentionEnergy(energy, head_sizes(attention[0]))
        return shared, (_attention_axes(shared, tuple(kernel.variable.shape)), 1)
    groups = kernel.groups if energy.groups is None else energy.groups
    axes = kernel.neuron_axis[0] if len(kernel.neuron_axis) == 1 else list(kernel.neuron_axis)
    if (axes, groups) != (-1, 1):
        energy = copy.copy(energy)
        energy.neuron_axis, energy.groups = axes, groups
    return energy, (axes, groups)


def _short_form(energy: Any) -> str:
    inner = energy.regularizer if isinstance(energy, AttentionEnergy) else energy
    return f"{type(inner).__name__}({inner.factor:g})"


def _note(
    found: ModelKernel, replaced: list[Any], kept: list[Any], *, sampled: bool, slow: bool
) -> str:
    notes = []
    if kept:
        notes.append("in addition to " + ", ".join(type(term).__name__ for term in kept))
    if replaced:
        notes.append("replaces " + ", ".join(map(_short_form, replaced)))
    if found.kernel.factors:
        notes.append("LoRA: energy of the effective kernel")
    elif found.kernel.variable is not None and not found.kernel.variable.trainable:
        notes.append("frozen: no energy until it is trainable")
    if sampled:
        notes.append(f"many neurons: random groups of {SAMPLE}, not all pairs")
    elif slow:
        notes.append(f"many neurons: all pairs take long, `MHE(sample={SAMPLE})` is faster")
    return "; ".join(notes)


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return one is other or one.get_config() == other.get_config()


def plan_kernel(
    found: ModelKernel,
    role: str,
    regularizer: Any,
    *,
    is_default: bool,
    requested: bool,
    replaceable: set[int],
) -> Plan:
    """What to do with a kernel.

    Args:
        found: the kernel.
        role: `"hidden"` or `"output"`.
        regularizer: the regularizer for kernels of this role, or None.
        is_default: whether it is the default, an `MHE`. Kernels with many neurons then get the
            energy of random groups.
        requested: whether the caller selected layers by `where`.
        replaceable: ids of the layers that can be wrapped.
    """

    def skip(reason: str) -> Plan:
        return Plan(found, role, reason)

    if any(isinstance(owner, HypersphericalRegularization) for owner in found.owners):
        mode = found.kernel.quantization
        return skip(WRAPPED if mode is None else f"quantized, {mode}: its wrapper has no effect")
    if regularizer is None:
        return skip(f"no regularizer for {role} layers")
    reason = skip_reason(found.kernel, requested=requested)
    if reason is not None:
        return skip(reason)

    new, slow, counts, wrap = [], False, None, False
    many = has_many_neurons(found)
    sampled = many and is_default
    for term in [of_random_groups(regularizer)] if sampled else terms_of(regularizer):
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
            term = term if wrap else adapted
        new.append(term)
    old = terms_of(regularizer_of(found.kernel))
    kept = [term for term in old if not is_energy(term)]
    new = [term for term in new if not any(_equal(term, other) for other in kept)]
    replaced = [
        term for term in old if is_energy(term) and not any(_equal(term, other) for other in new)
    ]
    note = _note(found, replaced, kept, sampled=sampled, slow=slow)
    return Plan(found, role, note, new, kept, wrap, slow, counts)


def skip_partial_layers(plans: list[Plan]) -> list[Plan]:
    """Skips all kernels of a layer that must share a regularizer if one of them cannot have it.

    A wrapper regularizes all kernels of a layer, and attention has one regularizer for all.
    """

    def shared(plan: Plan) -> bool:
        return plan.wrap or any(isinstance(owner, ATTENTION) for owner in plan.found.owners)

    skipped = {id(plan.found.owners[0]): plan for plan in plans if not plan.new}
    result = []
    for plan in plans:
        other = skipped.get(id(plan.found.owners[0]))
        if plan.new and shared(plan) and other is not None:
            note = f"all kernels of the layer or none; {other.found.name}: {other.note}"
            plan = Plan(plan.found, plan.role, note)
        result.append(plan)
    return result
