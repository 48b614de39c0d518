"""Measures the kernels of a model on the host."""

import dataclasses
import math
from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mhe.analysis._measurement import Measurement, check_arguments, measurement_of
from keras_mhe.analysis._neuron_statistics import neuron_statistics
from keras_mhe.analysis._report import KernelReport, Report
from keras_mhe.energies._neurons import neuron_array
from keras_mhe.kernels._layer import Kernel
from keras_mhe.kernels._model import (
    LayerFilter,
    ModelKernel,
    find_kernels,
    layer_predicate,
    other_weights,
)
from keras_mhe.kernels._named_axes import NamedAxes, with_named_axes
from keras_mhe.kernels._roles import role_of
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason, unsupported_reason
from keras_mhe.reference import lower_bound, position, uniform_energy, uniform_nearest_angle


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


def kernel_report(layer: str, role: str, measurement: Measurement) -> KernelReport:
    """The report on one kernel."""
    spec = measurement.spec
    array = kernel_array(measurement.found.kernel)
    groups, d, n = array.shape
    statistics = neuron_statistics(array, spec.potential(n, d))
    angles = statistics.nearest_angles[np.isfinite(statistics.nearest_angles)]
    directed, finite = len(angles) > 0, not math.isnan(statistics.energy)
    options: Any = dataclasses.asdict(spec)
    return KernelReport(
        layer=layer,
        kernel=measurement.found.name,
        role=role,
        regularizer=measurement.regularizer,
        **options,
        groups=groups,
        neurons=n,
        dimension=d,
        nearest_angle_min=float(np.min(angles)) if directed else None,
        nearest_angle_mean=float(np.mean(angles)) if directed else None,
        nearest_angle_max=float(np.max(angles)) if directed else None,
        uniform_nearest_angle=uniform_nearest_angle(n, d, half_space=spec.half_space),
        # A kernel of zeros would have the lowest energy of all.
        position=position(statistics.energy, n, d, **options) if directed and finite else None,
        energy=statistics.energy,
        lower_bound=lower_bound(n, d, **options),
        uniform_energy=uniform_energy(n, d, **options),
        zero=statistics.zero,
        duplicate=statistics.duplicate,
        non_finite=statistics.non_finite,
        note=measurement.note,
        nearest_angles=statistics.nearest_angles,
    )


def report_of(
    model: keras.Model,
    outputs: tuple[list[keras.layers.Layer], str],
    *,
    where: LayerFilter,
    axes: NamedAxes,
    **arguments: Any,
) -> Report:
    """The report of `energy_report`. `outputs` is the result of `output_layers`."""
    given = check_arguments(**arguments)
    kernels = with_named_axes(find_kernels(model), axes)
    output, unknown = outputs
    rows, left_out = [], {}
    selected = layer_predicate(where, kernels)
    for named in named_kernels(kernels):
        if not selected(named.found):
            continue
        role = role_of(named.found, output)
        measurement = measurement_of(named.found, role, given)
        requested = where is not None or measurement.found.axes_named
        reason = reason_to_leave_out(measurement.found.kernel, requested)
        if reason is None:
            rows.append(kernel_report(named.layer, role, measurement))
        else:
            left_out[named.label] = reason
    if where is None:
        for path, weight in other_weights(model, kernels):
            left_out[f"{path}/{weight.name}"] = unsupported_reason(weight.name)
    if not rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(
            f"The model has no kernel to report ({reasons or 'it has none'}). "
            f"Received: model={model!r}"
        )
    notes = []
    if given and any(row.regularizer for row in rows):
        notes.append(f"Arguments replace what regularizers say: {', '.join(given)}.")
    if unknown:
        notes.append(f"The output layers of {unknown} are unknown.")
    return Report(rows, left_out, " ".join(notes))
