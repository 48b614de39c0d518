"""What is to be done to each kernel of a model, before anything is done."""

import copy
from typing import Any, NamedTuple

from keras_mhe.attention import AttentionEnergy, head_sizes
from keras_mhe.choosing import Where
from keras_mhe.kernels import ATTENTION
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.obstacles import extents_of, obstacle
from keras_mhe.placing import is_energy, regularizer_of
from keras_mhe.regularizers import MHE, HypersphericalRegularizer, terms_of
from keras_mhe.sites import Site

# Above so many neurons all pairs take longer than most training steps do.
_MANY = 8192

WRAPPED = "wrapped already"


class Plan(NamedTuple):
    """What is to be done to one kernel.

    Attributes:
        site: the kernel.
        role: as in `Row`.
        note: as in `Row`.
        new: the regularizers that it is given; [] where it is skipped.
        kept: those of its own that it keeps.
        learns: whether the new ones need a wrapper.
        extents: groups, dimension and neurons, if known.
    """

    site: Site
    role: str
    note: str
    new: list[Any] = []  # noqa: RUF012
    kept: list[Any] = []  # noqa: RUF012
    learns: bool = False
    extents: tuple[int, int, int] | None = None


def _located(energy: HypersphericalRegularizer, site: Site) -> tuple[Any, tuple[Any, Any]]:
    """The energy with the neurons where the layer has them, and its axes and groups."""
    kernel = site.kernel
    attention = [owner for owner in site.owners if isinstance(owner, ATTENTION)]
    if energy.neuron_axis is not None:
        return energy, (energy.neuron_axis, energy.groups)
    if attention:
        located = AttentionEnergy(energy, head_sizes(attention[0]))
        return located, (located.neuron_axis(kernel.variable.shape), 1)
    groups = kernel.groups if energy.groups is None else energy.groups
    axes = kernel.neuron_axis[0] if len(kernel.neuron_axis) == 1 else list(kernel.neuron_axis)
    if (axes, groups) != (-1, 1):
        energy = copy.copy(energy)
        energy.neuron_axis, energy.groups = axes, groups
    return energy, (axes, groups)


def _short(energy: Any) -> str:
    inner = energy.regularizer if isinstance(energy, AttentionEnergy) else energy
    return f"{type(inner).__name__}({inner.factor:g})"


def _notes(
    site: Site, extents: Any, energies: list[Any], dropped: list[Any], kept: list[Any]
) -> str:
    notes = []
    if kept:
        notes.append("beside " + ", ".join(type(term).__name__ for term in kept))
    if dropped:
        notes.append("in place of " + ", ".join(map(_short, dropped)))
    if site.kernel.factors:
        notes.append("LoRA: the energy of the kernel in effect")
    elif site.kernel.variable is not None and not site.kernel.variable.trainable:
        notes.append("frozen: adds nothing until it is trainable")
    exact = any(isinstance(energy, MHE) and energy.sample is None for energy in energies)
    if extents is not None and extents[-1] > _MANY and exact:
        notes.append("many neurons: cheaper with `sample=`")
    return "; ".join(notes)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return one is other or one.get_config() == other.get_config()


def planned(site: Site, role: str, regularizer: Any, where: Where, replaceable: set[int]) -> Plan:
    """What is to be done to a kernel.

    Args:
        site: the kernel.
        role: `"hidden"` or `"output"`.
        regularizer: what kernels of this role are given; None for nothing.
        where: what was asked for, of which this kernel is a part.
        replaceable: ids of the layers that can be wrapped.
    """

    def skipped(reason: str) -> Plan:
        return Plan(site, "skipped", reason)

    if any(isinstance(owner, HypersphericalRegularization) for owner in site.owners):
        return skipped(WRAPPED)
    if regularizer is None:
        return skipped(f"{role} layers are given no regularizer")
    reason = obstacle(site.kernel, asked=where is not None)
    if reason is not None:
        return skipped(reason)

    new, energies, extents, learns = [], [], None, False
    for term in terms_of(regularizer):
        if isinstance(term, HypersphericalRegularizer):
            try:
                located, axes = _located(term, site)
                if site.kernel.shape is not None:
                    extents = extents_of(site.kernel.shape, *axes)
                    term.state_shapes(extents[1])
            except ValueError as error:
                return skipped(str(error))
            energies.append(term)
            learns = term.learner is not None
            if learns and site.kernel.factors:
                return skipped("LoRA, which a regularizer that learns cannot go with")
            if learns and id(site.owners[0]) not in replaceable:
                return skipped(
                    f"{term.learner} learns: wrap the layer where it is made, "
                    "`keras_mhe.HypersphericalRegularization(layer, ...)`"
                )
            # A wrapper asks the layer where its neurons are.
            term = term if learns else located
        new.append(term)
    old = terms_of(regularizer_of(site.kernel))
    kept = [term for term in old if not is_energy(term)]
    new = [term for term in new if not any(_same(term, other) for other in kept)]
    dropped = [
        term for term in old if is_energy(term) and not any(_same(term, other) for other in new)
    ]
    note = _notes(site, extents, energies, dropped, kept)
    return Plan(site, role, note, new, kept, learns, extents)


def all_or_none(plans: list[Plan]) -> list[Plan]:
    """Leaves layers alone of which some kernels only could have what they would have to share.

    A wrapper takes all kernels of a layer, and attention has one regularizer for all.
    """

    def shared(plan: Plan) -> bool:
        return plan.learns or any(isinstance(owner, ATTENTION) for owner in plan.site.owners)

    lacking = {id(plan.site.owners[0]): plan for plan in plans if not plan.new}
    amended = []
    for plan in plans:
        other = lacking.get(id(plan.site.owners[0]))
        if plan.new and shared(plan) and other is not None:
            note = f"all its kernels or none, and {other.site.name}: {other.note}"
            plan = Plan(plan.site, "skipped", note)
        amended.append(plan)
    return amended
