"""The report of a model, alone or compared with an earlier model."""

from pathlib import Path
from typing import overload

import keras

from keras_mhe.analysis._drift import drift_report_of, earlier_model
from keras_mhe.analysis._drift_report import DriftReport
from keras_mhe.analysis._measure import report_of
from keras_mhe.analysis._report import Report
from keras_mhe.kernels._model import LayerFilter, check_model
from keras_mhe.kernels._named_axes import NamedAxes
from keras_mhe.kernels._outputs import output_layers


@overload
def energy_report(
    model: keras.Model,
    s: float | None = None,
    *,
    distance: str | None = None,
    t: float | None = None,
    half_space: bool | None = None,
    softening: float | str | None = None,
    where: LayerFilter = None,
    axes: NamedAxes = None,
    against: None = None,
) -> Report: ...
@overload
def energy_report(
    model: keras.Model,
    s: float | None = None,
    *,
    distance: str | None = None,
    t: float | None = None,
    half_space: bool | None = None,
    softening: float | str | None = None,
    where: LayerFilter = None,
    axes: NamedAxes = None,
    against: keras.Model | Report | str | Path,
) -> DriftReport: ...
def energy_report(
    model: keras.Model,
    s: float | None = None,
    *,
    distance: str | None = None,
    t: float | None = None,
    half_space: bool | None = None,
    softening: float | str | None = None,
    where: LayerFilter = None,
    axes: NamedAxes = None,
    against: keras.Model | Report | str | Path | None = None,
) -> Report:
    """Reports how well the neurons of every kernel of a model are spread.

    `position = (energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1
    is random, above 1 the neurons are clustered. `lower_bound` and `uniform_energy` are those of
    `keras_mhe.reference`, for the same number of neurons and coordinates. The report also contains
    the angles from neurons to the nearest other ones, and the numbers of neurons that are zero,
    duplicate or not finite. The model does not change, and it needs no regularizer.

    A kernel that has an energy of this package is measured as this energy says: its neurons, its
    space and its potential, without projections. It does not matter whether the energy is bare, in
    a sum, in a wrapper, or from `regularize`. All other kernels are measured by their role, with
    the axes and groups of their layer. `row.regularizer` says which it was.

    All pairs of neurons are computed exactly, on the host and in float64, in memory proportional to
    the kernel. Time is proportional to `N^2 d`: 20,000 neurons of 32 coordinates take about 10 s on
    two cores. `where` can leave such layers out.

    Args:
        model: a built `keras.Model`.
        s: power of the potential, zero or larger; 0 means the logarithm. None means that of the
            kernel's own energy, or 2.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`. None means that of the kernel's own
            energy, or `"euclidean"`.
        t: rate of a Gaussian, as in `MHE`. None means that of the kernel's own energy, or 2.
        half_space: whether the mirror image of a neuron counts as that neuron. None means what the
            kernel's own energy says. Without one, it means False for output layers and embeddings,
            and True for other kernels, as in `regularize`.
        softening: distance below which the potential is continued linearly, as in
            `hyperspherical_energy`. None means that of the kernel's own energy, or `"auto"`.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers. Filters of DepthwiseConv are measured only if `where` selects
            them or if they have an energy.
        axes: the axes of neurons by the names of layers, as in `regularize`.
        against: an earlier model to compare with, for example the model before training: a built
            `keras.Model`, the path of a `.keras` file, which is loaded in the safe mode of Keras,
            or a `Report`. The earlier model must not share its weights with `model`. Kernels are
            matched by the names of their layers. If names differ, but number, order and sizes of
            all kernels are equal, they are matched by their order. Otherwise, names that differ
            only in the numbers that Keras appends are matched in their order. The energies before
            have the same potential as those after. The rows of a `Report` must have the same
            potential, and give no turns, because a report holds no neurons.

    Returns:
        A `Report`, which prints as text. `rows` is a list of `KernelReport`: energies and positions
        have no unit, angles are in degrees. `to_dict`, `to_json` and `to_pandas` convert the
        report. With `against`, it is a `DriftReport`: `changes` holds the numbers before and after
        for each kernel, and the turn of each neuron,
        `2 atan2(|u - v|, |u + v|)` with its directions `u` before and `v` after.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range, or if the model
            is not built, has no kernel to report, or has no kernel to compare.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
        >>> model.layers[0].set_weights([keras.ops.eye(64, 32), keras.ops.zeros(32)])
        >>> report = energy_report(model, half_space=True)
        >>> report.rows[0].position, report.rows[0].nearest_angle_min
        (0.0, 90.0)

        A quarter turn of every neuron, from one half of the coordinates to the other:

        >>> before = keras.models.clone_model(model)
        >>> before.layers[0].set_weights([keras.ops.eye(64, 32, k=-32), keras.ops.zeros(32)])
        >>> drift = energy_report(model, against=before)
        >>> drift.changes[0].turned_mean, drift.changes[0].change("energy")
        (90.0, 0.0)
    """
    check_model(model)
    before = None if against is None else earlier_model(against)
    report = report_of(
        model,
        output_layers(model),
        s=s,
        distance=distance,
        t=t,
        half_space=half_space,
        softening=softening,
        where=where,
        axes=axes,
    )
    if before is None:
        return report
    return drift_report_of(report, model, before, axes=axes, all_kernels=where is None)
