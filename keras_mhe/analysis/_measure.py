"""Measures the kernels of a model on the host."""

import dataclasses
import math
from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mhe._arguments import check_flag
from keras_mhe.analysis._neuron_statistics import neuron_statistics
from keras_mhe.analysis._report import KernelReport, Report
from keras_mhe.energies._neurons import neuron_array
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.kernels._layer import Kernel
from keras_mhe.kernels._model import (
    LayerFilter,
    ModelKernel,
    find_kernels,
    layer_predicate,
    other_weights,
)
from keras_mhe.kernels._named_axes import NamedAxes, with_named_axes
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason, unsupported_reason
from keras_mhe.reference import lower_bound, position, uniform_energy


class NamedKernel(NamedTuple):
    """A kernel with the name of its layer in reports, which no other layer has."""

    layer: str
    found: ModelKernel

    @property
    def label(self) -> str:
        """The name of the layer and that of the kernel within it."""
        return f"{self.layer}/{self.found.name}"


def named_kernels(kernels: list[ModelKernel]) -> list[NamedKernel]:
    """All kernels of a model. If layers of a subclassed model share a name, they get numbers."""
    named: dict[str, NamedKernel] = {}
    repeats: Counter[str] = Counter()
    for found in kernels:
        each = first = NamedKernel(found.path, found)
        # A name with a number may be that of another layer.
        while each.label in named:
            repeats[first.label] += 1
            each = NamedKernel(f"{found.path}_{repeats[first.label]}", found)
        named[each.label] = each
    return list(named.values())


def reason_to_leave_out(kernel: Kernel, requested: bool) -> str | None:
    """Why a report leaves a kernel out; None if it does not. `requested` as in `skip_reason`."""
    if kernel.shape is None:
        return "not built yet"
    reason = skip_reason(kernel, requested=requested)
    if reason is None:
        try:
            neuron_counts(kernel.shape, kernel.neuron_axis, kernel.groups)
        except ValueError as error:
            return str(error)
    return reason


def kernel_array(kernel: Kernel) -> np.ndarray:
    """The neurons of a kernel in float64, of shape `(groups, d, N)`."""
    return neuron_array(kernel.variable, kernel.neuron_axis, kernel.groups)


def kernel_report(named: NamedKernel, role: str, spec: PotentialSpec) -> KernelReport:
    """The report on one kernel."""
    array = kernel_array(named.found.kernel)
    groups, d, n = array.shape
    statistics = neuron_statistics(array, spec.potential(n, d))
    angles = statistics.nearest_angles[np.isfinite(statistics.nearest_angles)]
    directed, finite = len(angles) > 0, not math.isnan(statistics.energy)
    options: Any = dataclasses.asdict(spec)
    return KernelReport(
        layer=named.layer,
        kernel=named.found.name,
        role=role,
        groups=groups,
        dimension=d,
        neurons=n,
        half_space=spec.half_space,
        energy=statistics.energy,
        lower_bound=lower_bound(n, d, **options),
        uniform_energy=uniform_energy(n, d, **options),
        # A kernel of zeros would have the lowest energy of all.
        position=position(statistics.energy, n, d, **options) if directed and finite else None,
        nearest_angle_min=float(np.min(angles)) if directed else None,
        nearest_angle_mean=float(np.mean(angles)) if directed else None,
        nearest_angle_max=float(np.max(angles)) if directed else None,
        zero=statistics.zero,
        duplicate=statistics.duplicate,
        non_finite=statistics.non_finite,
        nearest_angles=statistics.nearest_angles,
    )


def report_of(
    model: keras.Model,
    outputs: tuple[list[keras.layers.Layer], str],
    *,
    s: float,
    distance: str,
    half_space: bool | None,
    softening: float | str,
    where: LayerFilter,
    axes: NamedAxes,
) -> Report:
    """The report of `energy_report`. `outputs` is the result of `output_layers`."""
    spec = PotentialSpec(s, distance, softening=softening)
    if half_space is not None:
        half_space = check_flag(half_space, "half_space")
    kernels = with_named_axes(find_kernels(model), axes)
    output, unknown = outputs
    rows, left_out = [], {}
    selected = layer_predicate(where, kernels)
    for named in named_kernels(kernels):
        if not selected(named.found):
            continue
        requested = where is not None or named.found.axes_named
        reason = reason_to_leave_out(named.found.kernel, requested)
        if reason is not None:
            left_out[named.label] = reason
            continue
        role = "output" if named.found.belongs_to(output) else "hidden"
        half = role == "hidden" if half_space is None else half_space
        rows.append(kernel_report(named, role, dataclasses.replace(spec, half_space=half)))
    if where is None:
        for path, weight in other_weights(model, kernels):
            left_out[f"{path}/{weight.name}"] = unsupported_reason(weight.name)
    if not rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(
            f"The model has no kernel to report ({reasons or 'it has none'}). "
            f"Received: model={model!r}"
        )
    note = f"The output layers of {unknown} are unknown." if unknown else ""
    return Report(rows, left_out, spec.s, spec.distance, note, spec.softening)
