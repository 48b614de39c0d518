"""The report of a model: measures every kernel on the host."""

import dataclasses
import math
from collections import Counter
from typing import Any

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
    check_model,
    find_kernels,
    layer_predicate,
    other_weights,
)
from keras_mhe.kernels._outputs import output_layers
from keras_mhe.kernels._skip_reasons import neuron_counts, skip_reason, unsupported_reason
from keras_mhe.reference import lower_bound, position, uniform_energy


def _reason_to_leave_out(kernel: Kernel, requested: bool) -> str | None:
    if kernel.shape is None:
        return "not built yet"
    reason = skip_reason(kernel, requested=requested)
    if reason is None:
        try:
            neuron_counts(kernel.shape, kernel.neuron_axis, kernel.groups)
        except ValueError as error:
            return str(error)
    return reason


def _kernel_report(found: ModelKernel, layer: str, role: str, spec: PotentialSpec) -> KernelReport:
    kernel = found.kernel
    array = neuron_array(kernel.variable, kernel.neuron_axis, kernel.groups)
    groups, d, n = array.shape
    statistics = neuron_statistics(array, spec.potential(n, d))
    angles = statistics.nearest_angles[np.isfinite(statistics.nearest_angles)]
    directed, finite = len(angles) > 0, not math.isnan(statistics.energy)
    options: Any = dataclasses.asdict(spec)
    return KernelReport(
        layer=layer,
        kernel=found.name,
        role=role,
        groups=groups,
        dimension=d,
        neurons=n,
        half_space=spec.half_space,
        energy=statistics.energy,
        bound=lower_bound(n, d, **options),
        uniform=uniform_energy(n, d, **options),
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
) -> Report:
    """The report of `energy_report`. `outputs` is the result of `output_layers`."""
    spec = PotentialSpec(s, distance, softening=softening)
    if half_space is not None:
        half_space = check_flag(half_space, "half_space")
    kernels = find_kernels(model)
    output, unknown = outputs
    rows, left_out = [], {}
    repeats: Counter[str] = Counter()
    for found in filter(layer_predicate(where, kernels), kernels):
        layer, label = found.path, f"{found.path}/{found.name}"
        # Layers of a subclassed model may have the same name.
        if repeats[label]:
            layer = f"{layer}_{repeats[label]}"
        repeats[label] += 1
        reason = _reason_to_leave_out(found.kernel, requested=where is not None)
        if reason is not None:
            left_out[f"{layer}/{found.name}"] = reason
            continue
        role = "output" if found.belongs_to(output) else "hidden"
        half = role == "hidden" if half_space is None else half_space
        own_spec = dataclasses.replace(spec, half_space=half)
        rows.append(_kernel_report(found, layer, role, own_spec))
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
    return Report(rows, left_out, spec.s, spec.distance, note)


def energy_report(
    model: keras.Model,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool | None = None,
    softening: float | str = "auto",
    where: LayerFilter = None,
) -> Report:
    """Reports how well the neurons of every kernel of a model are spread.

    `position = (energy - bound) / (uniform - bound)`: 0 is the best possible, 1 is random, above 1
    the neurons are clustered. `bound` and `uniform` are `keras_mhe.reference.lower_bound` and
    `uniform_energy` for the same number of neurons and coordinates. The report also contains the
    angles from neurons to the nearest other ones, and the numbers of neurons that are zero,
    duplicate or not finite. The model does not change, and it needs no regularizer.

    All pairs of neurons are computed exactly, on the host and in float64, in memory proportional to
    the kernel. Time is proportional to `N^2 d`: 20,000 neurons of 32 coordinates take about 10 s on
    two cores. `where` can leave such layers out.

    Args:
        model: a built `keras.Model`.
        s: power of the potential, zero or larger; 0 means the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of a neuron counts as that neuron. None means True
            for hidden layers and False for output layers, as in `regularize`.
        softening: distance below which the potential is continued linearly, as in
            `hyperspherical_energy`.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers. The axes and groups of neurons are those of each layer, as in
            `regularize`. Filters of DepthwiseConv are measured only if `where` selects them.

    Returns:
        A `Report`, which prints as text. `rows` is a list of `KernelReport`: energies and positions
        have no unit, angles are in degrees. `to_dict`, `to_json` and `to_pandas` convert the
        report.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range, or if the model
            is not built or has no kernel to report.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> model.layers[0].set_weights([keras.ops.eye(64, 32), keras.ops.zeros(32)])
        >>> report = energy_report(model, half_space=True)
        >>> report.rows[0].position, report.rows[0].nearest_angle_min
        (0.0, 90.0)
    """
    check_model(model)
    return report_of(
        model,
        output_layers(model),
        s=s,
        distance=distance,
        half_space=half_space,
        softening=softening,
        where=where,
    )
