"""What to do with each kernel of a model, decided before anything changes."""

import copy
from typing import Any, NamedTuple

from keras_mhe.kernels._layer import ATTENTION
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.models._assign import is_energy, regularizer_of
from keras_mhe.regularizers._attention import AttentionEnergy, head_sizes
from keras_mhe.regularizers._base import HypersphericalRegularizer, terms_of
from keras_mhe.regularizers._mhe import MHE

# With more neurons, all pairs take longer than most training steps.
_MANY_NEURONS = 8192

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
        counts: groups, dimension and neurons, if known.
    """

    found: ModelKernel
    role: str
    note: str
    new: list[Any] = []  # noqa: RUF012
    kept: list[Any] = []  # noqa: RUF012
    wrap: bool = False
    counts: tuple[int, int, int] | None = None


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
        return shared, (shared.neuron_axis(kernel.variable.shape), 1)
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
    found: ModelKernel, counts: Any, energies: list[Any], replaced: list[Any], kept: list[Any]
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
    exact = any(isinstance(energy, MHE) and energy.sample is None for energy in energies)
    if counts is not None and counts[-1] > _MANY_NEURONS and exact:
        notes.append("many neurons: `sample=` is cheaper")
    return "; ".join(notes)


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return one is other or one.get_config() == other.get_config()


def plan_kernel(
    found: ModelKernel, role: str, regularizer: Any, *, requested: bool, replaceable: set[int]
) -> Plan:
    """What to do with a kernel.

    Args:
        found: the kernel.
        role: `"hidden"` or `"output"`.
        regularizer: the regularizer for kernels of this role, or None.
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

    new, energies, counts, wrap = [], [], None, False
    for term in terms_of(regularizer):
        if isinstance(term, HypersphericalRegularizer):
            try:
                adapted, axes = _for_kernel(term, found)
                if found.kernel.shape is not None:
                    counts = neuron_counts(found.kernel.shape, *axes)
                    term.state_shapes(counts[1])
            except ValueError as error:
                return skip(str(error))
            energies.append(term)
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
    note = _note(found, counts, energies, replaced, kept)
    return Plan(found, role, note, new, kept, wrap, counts)


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
