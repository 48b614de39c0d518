"""How a kernel is measured: as its own regularizer says, or by its role."""

import dataclasses
from typing import Any, NamedTuple

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.kernels._layer import Kernel
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.kernels._roles import is_half_space
from keras_mhe.layers._assigned import AssignedEnergy, assigned_energies, regularizer_of
from keras_mhe.regularizers._attention import is_energy
from keras_mhe.regularizers._base import terms_of

# Arguments of a potential that a report was given, by name.
GivenArguments = dict[str, Any]
_NOT_IN_LOSS = (
    "its regularizer was assigned after the layer was built, so the loss does not contain it: "
    "call `keras_mhe.regularize`"
)
# What only some distances have.
_OF_DISTANCE = ("s", "softening", "t")


class Measurement(NamedTuple):
    """How a kernel is measured.

    Attributes:
        found: the kernel, with the axes and groups of the neurons that are compared.
        spec: the potential.
        regularizer: the class of the kernel's energy that says this, or None if it has none.
        note: a sentence if the energy acts on other neurons than those of the layer, or is not in
            the loss, or "".
    """

    found: ModelKernel
    spec: PotentialSpec
    regularizer: str | None = None
    note: str = ""


def check_arguments(**arguments: Any) -> GivenArguments:
    """The arguments that are not None, checked together."""
    given = {name: value for name, value in arguments.items() if value is not None}
    PotentialSpec(**given)
    return given


def _spec(own: PotentialSpec, given: GivenArguments) -> PotentialSpec:
    """The kernel's own potential, with the given arguments in place of its own."""
    powers = own.distance == "gaussian" and "s" in given
    distance = given.get("distance", "euclidean" if powers else own.distance)
    changes = dict(given, distance=distance)
    if (distance == "gaussian") != (own.distance == "gaussian"):
        defaults = PotentialSpec(distance=distance)
        changes = {name: getattr(defaults, name) for name in _OF_DISTANCE} | changes
    return dataclasses.replace(own, **changes)


def _axes_text(axes: tuple[int, ...], groups: int) -> str:
    axis: Any = axes[0] if len(axes) == 1 else axes
    return f"`neuron_axis={axis}`" + (f", `groups={groups}`" if groups > 1 else "")


def _mismatch(energy: AssignedEnergy, kernel: Kernel) -> str:
    """A sentence if a bare energy acts on other neurons than those of the layer, or ""."""
    if not energy.by_default or kernel.neuron_axis is None or kernel.shape is None:
        return ""
    rank, groups = len(kernel.shape), kernel.groups or 1
    axes = tuple(axis % rank for axis in kernel.neuron_axis)
    if (axes, groups) == ((rank - 1,), 1):
        return ""
    kind = type(kernel.layer).__name__
    return (
        f"{type(energy.energy).__name__} acts on the last axis of the {kernel.attribute}, which is "
        f"not that of the neurons of {kind}: set {_axes_text(kernel.neuron_axis, groups)} in it"
    )


def measurement_of(found: ModelKernel, role: str, given: GivenArguments) -> Measurement:
    """How to measure a kernel.

    The kernel's own energy says it: that with a potential, if there are several. Other energies say
    only the space and the neurons. A kernel without an energy is measured by its role, with s = 2.

    Args:
        found: a kernel.
        role: `"hidden"` or `"output"`.
        given: arguments that replace those of the potential.
    """
    energies = list(assigned_energies(found.kernel))
    if not energies:
        spec = PotentialSpec(half_space=is_half_space(found, role))
        ignored = any(map(is_energy, terms_of(regularizer_of(found.kernel))))
        return Measurement(found, _spec(spec, given), note=_NOT_IN_LOSS if ignored else "")
    chosen = next((each for each in energies if hasattr(each.energy, "spec")), energies[0])
    own = getattr(chosen.energy, "spec", PotentialSpec(half_space=chosen.energy.half_space))
    note = ""
    if not found.axes_named:
        note = _mismatch(chosen, found.kernel)
        kernel = found.kernel._replace(neuron_axis=chosen.neuron_axis, groups=chosen.groups)
        # The energy names the axes, also where the layer does not tell them.
        found = found._replace(kernel=kernel, axes_named=True)
    return Measurement(found, _spec(own, given), type(chosen.energy).__name__, note)
