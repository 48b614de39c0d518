"""Reports of whole models: every kernel is measured on the host."""

import math
from collections import Counter
from typing import Any

import keras
import numpy as np

from keras_mhe.axes import neuron_array
from keras_mhe.census import census
from keras_mhe.choosing import Where, check_model, chosen
from keras_mhe.kernels import Kernel
from keras_mhe.obstacles import extents_of, obstacle, why_apart
from keras_mhe.outputs import output_layers
from keras_mhe.potentials import check_flag, check_potential, potential_for
from keras_mhe.reference import lower_bound, position, uniform_energy
from keras_mhe.report import Report, Standing
from keras_mhe.sites import other_weights, sites_of


def _reason(kernel: Kernel, asked: bool) -> str | None:
    """Why a kernel is left out; None where it is not."""
    if kernel.shape is None:
        return "not built yet"
    reason = obstacle(kernel, asked=asked)
    if reason is None:
        try:
            extents_of(kernel.shape, kernel.neuron_axis, kernel.groups)
        except ValueError as error:
            return str(error)
    return reason


def _standing(
    kernel: Kernel,
    path: str,
    name: str,
    role: str,
    half_space: bool,
    options: dict[str, Any],
) -> Standing:
    array = neuron_array(kernel.variable, kernel.neuron_axis, kernel.groups)
    groups, d, n = array.shape
    options = {**options, "half_space": half_space}
    found = census(array, potential_for(n, d, **options))
    angles = found.nearest[np.isfinite(found.nearest)]
    known, finite = len(angles) > 0, not math.isnan(found.energy)
    return Standing(
        layer=path,
        kernel=name,
        role=role,
        groups=groups,
        dimension=d,
        neurons=n,
        half_space=half_space,
        energy=found.energy,
        bound=lower_bound(n, d, **options),
        uniform=uniform_energy(n, d, **options),
        # Nothing but zeros would have the least energy there is.
        position=position(found.energy, n, d, **options) if known and finite else None,
        smallest=float(np.min(angles)) if known else None,
        mean=float(np.mean(angles)) if known else None,
        largest=float(np.max(angles)) if known else None,
        zero=found.zero,
        duplicate=found.duplicate,
        non_finite=found.non_finite,
        nearest=found.nearest,
    )


def measured(
    model: keras.Model,
    found: tuple[list[Any], str],
    *,
    s: float,
    distance: str,
    half_space: bool | None,
    softening: float | str,
    where: Where,
) -> Report:
    """See `energy_report`, for a model whose `output_layers` are found."""
    s, distance, _, softening = check_potential(s, distance, False, softening)
    if half_space is not None:
        half_space = check_flag(half_space, "half_space")
    options = {"s": s, "distance": distance, "softening": softening}
    sites = sites_of(model)
    asked_for = chosen(where, sites)
    outputs, unknown = found
    rows, left_out = [], {}
    repeats: Counter[str] = Counter()
    for site in filter(asked_for, sites):
        kernel, path, label = site.kernel, site.path, f"{site.path}/{site.name}"
        # Names of layers need not differ in models that say in Python what they do.
        if repeats[label]:
            path = f"{path}_{repeats[label]}"
        repeats[label] += 1
        label = f"{path}/{site.name}"
        reason = _reason(kernel, asked=where is not None)
        if reason is not None:
            left_out[label] = reason
            continue
        role = "output" if site.belongs_to(outputs) else "hidden"
        half = role == "hidden" if half_space is None else half_space
        rows.append(_standing(kernel, path, site.name, role, half, options))
    if where is None:
        for path, weight in other_weights(model, sites):
            left_out[f"{path}/{weight.name}"] = why_apart(weight.name)
    if not rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(
            f"The model has no kernel to report ({reasons or 'it has none'}). "
            f"Received: model={model!r}"
        )
    note = f"Not known which layers give the output of {unknown}." if unknown else ""
    return Report(rows, left_out, s, distance, note)


def energy_report(
    model: keras.Model,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool | None = None,
    softening: float | str = "auto",
    where: Where = None,
) -> Report:
    """Says of every kernel of a model where its energy stands, and what is wrong with it.

    `position = (energy - bound) / (uniform - bound)`: 0 is the least energy that so many neurons
    of so many coordinates can have, 1 that of random ones, above 1 they cluster; see
    `keras_mhe.reference`. Beside it the angles between neurons and their nearest, and how many
    are zero, duplicate or not finite. Nothing is changed, and the model needs no regularizer.

    Computed on the host in float64, all pairs of neurons exactly, in memory proportional to the
    kernel.

    Args:
        model: a built `keras.Model`.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: whether the mirror image of a neuron counts as that neuron. None is as
            `regularize` does: in hidden layers, not in those that outputs come from.
        softening: distance below which the potential goes on as a straight line, as in
            `hyperspherical_energy`.
        where: which layers: a function from a layer to True or False, or names of layers. None
            is all. Axes and groups of neurons are those of each layer, as in `regularize`;
            filters of DepthwiseConv are measured only if asked for.

    Returns:
        A `Report`, which prints as a table. `rows` holds its lines as named tuples: energies and
        positions without unit, angles in degrees. `to_dict`, `to_json` and `to_pandas` convert it.

    Raises:
        TypeError, ValueError: for a model that is not built or has no kernel to report, for an
            argument of the wrong type or out of range.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> model.layers[0].set_weights([keras.ops.eye(64, 32), keras.ops.zeros(32)])
        >>> report = energy_report(model, half_space=True)
        >>> report.rows[0].position, report.rows[0].smallest
        (0.0, 90.0)
    """
    check_model(model)
    return measured(
        model,
        output_layers(model),
        s=s,
        distance=distance,
        half_space=half_space,
        softening=softening,
        where=where,
    )
