"""Compares the kernels of a model with those of an earlier model or report."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_mhe.analysis._drift_report import DriftReport, KernelChange
from keras_mhe.analysis._measure import (
    NamedKernel,
    kernel_array,
    kernel_report,
    named_kernels,
    reason_to_leave_out,
)
from keras_mhe.analysis._neuron_statistics import neuron_turns
from keras_mhe.analysis._report import KernelReport, Report
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.kernels._model import check_model, find_kernels
from keras_mhe.kernels._named_axes import NamedAxes, with_named_axes


class _Candidate(NamedTuple):
    """A kernel that may have a counterpart: its names, its sizes, and the kernel or its report."""

    layer: str
    kernel: str
    sizes: Any
    source: Any

    @property
    def label(self) -> str:
        return f"{self.layer}/{self.kernel}"


def _candidates_of_model(model: keras.Model, axes: NamedAxes = None) -> list[_Candidate]:
    return [
        _Candidate(
            named.layer,
            named.found.name,
            (named.found.kernel.shape, named.found.kernel.neuron_axis, named.found.kernel.groups),
            named,
        )
        for named in named_kernels(with_named_axes(find_kernels(model), axes))
    ]


def _candidates_of_report(report: Report) -> list[_Candidate]:
    return [
        _Candidate(row.layer, row.kernel, (row.groups, row.dimension, row.neurons), row)
        for row in report.rows
    ]


def _matches(now: list[_Candidate], earlier: list[_Candidate]) -> tuple[dict[str, _Candidate], str]:
    """The counterpart of each kernel by its label, and a note if names did not decide.

    Names decide, unless they differ while number, sizes and order of all kernels are equal: Keras
    numbers the names of layers in one process, so two models of one function differ in names.
    """
    ours, theirs = ([each.label for each in side] for side in (now, earlier))
    order = [[(each.kernel, each.sizes) for each in side] for side in (now, earlier)]
    if set(ours) != set(theirs) and order[0] == order[1]:
        renamed = [(a, b) for a, b in zip(now, earlier, strict=True) if a.label != b.label]
        note = (
            "Names of layers differ, so kernels were matched by their order: "
            f"{renamed[0][0].layer} was {renamed[0][1].layer}"
            + (f", and {len(renamed) - 1} more." if renamed[1:] else ".")
        )
        return dict(zip(ours, earlier, strict=True)), note
    known = dict(zip(theirs, earlier, strict=True))
    return {label: known[label] for label in ours if label in known}, ""


def _compare_kernels(
    row: KernelReport, now: _Candidate, before: _Candidate, after: Report
) -> KernelChange | str:
    """The change of a kernel, or the reason why it cannot be compared."""
    ours: NamedKernel = now.source
    theirs: NamedKernel = before.source
    if ours.found.axes_named:
        own = ours.found.kernel
        kernel = theirs.found.kernel._replace(neuron_axis=own.neuron_axis, groups=own.groups)
        theirs = theirs._replace(found=theirs.found._replace(kernel=kernel))
        before = before._replace(sizes=(kernel.shape, kernel.neuron_axis, kernel.groups))
    reason = reason_to_leave_out(theirs.found.kernel, requested=True)
    if reason is not None:
        return f"before: {reason}"
    if now.sizes != before.sizes:
        if now.sizes[0] != before.sizes[0]:
            return f"shape {before.sizes[0]} before and {now.sizes[0]} after"
        return "other axes or groups of neurons before"
    # In the same space, even if the kernel was in the output layer before and is hidden now.
    spec = PotentialSpec(after.s, after.distance, row.half_space, after.softening)
    arrays = [kernel_array(named.found.kernel) for named in (theirs, ours)]
    return KernelChange(kernel_report(theirs, row.role, spec), row, neuron_turns(*arrays))


def _compare_rows(row: KernelReport, before: _Candidate) -> KernelChange | str:
    """The change of a row of a report, or the reason why it cannot be compared."""
    earlier: KernelReport = before.source
    for name in ("groups", "dimension", "neurons"):
        if getattr(row, name) != getattr(earlier, name):
            return f"{name} {getattr(earlier, name)} before and {getattr(row, name)} after"
    if row.half_space != earlier.half_space:
        spaces = ("half", "full") if earlier.half_space else ("full", "half")
        return f"{spaces[0]} space before and {spaces[1]} space after"
    return KernelChange(earlier, row, None)


def _check_same_energies(after: Report, before: Report) -> None:
    for name in ("s", "distance", "softening"):
        ours, theirs = getattr(after, name), getattr(before, name)
        if ours != theirs:
            raise ValueError(
                f"A report in argument `against` must have the same `{name}`, here {ours!r}. "
                f"Received: against.{name}={theirs!r}"
            )


def earlier_model(against: Any) -> keras.Model | Report:
    """The model or report in the argument `against`; a file is loaded in the safe mode of Keras."""
    if isinstance(against, (str, Path)):
        if Path(against).suffix != ".keras":
            raise ValueError(
                "A file in argument `against` must be a `.keras` file of a model. "
                f"Received: against={str(against)!r}"
            )
        against = keras.saving.load_model(against, compile=False, safe_mode=True)
    if isinstance(against, Report):
        return against
    if inspect.isclass(against) or not isinstance(against, keras.Model):
        raise TypeError(
            "Invalid value for argument `against`. Expected a `keras.Model`, the path of a "
            f"`.keras` file, a `Report` or None. Received: against={against!r}"
        )
    check_model(against)
    return against


def drift_report_of(
    after: Report,
    model: keras.Model,
    before: keras.Model | Report,
    *,
    axes: NamedAxes,
    all_kernels: bool,
) -> DriftReport:
    """Compares the kernels of a report with their counterparts.

    Args:
        after: the report of the model.
        model: the model.
        before: the earlier model, or its report.
        axes: as in `energy_report`. They are also those of the counterparts.
        all_kernels: whether to list the kernels that only the earlier model has.
    """
    if isinstance(before, Report):
        _check_same_energies(after, before)
        now, earlier = _candidates_of_report(after), _candidates_of_report(before)
    else:
        now, earlier = _candidates_of_model(model, axes), _candidates_of_model(before)
    matches, note = _matches(now, earlier)
    known = {each.label: each for each in now}

    def compare(row: KernelReport, label: str) -> KernelChange | str:
        if label not in matches:
            return "only after"
        if isinstance(before, Report):
            return _compare_rows(row, matches[label])
        return _compare_kernels(row, known[label], matches[label], after)

    changes: list[KernelChange] = []
    unmatched: dict[str, str] = {}
    for row in after.rows:
        label = f"{row.layer}/{row.kernel}"
        result = compare(row, label)
        if isinstance(result, str):
            unmatched[label] = result
        else:
            changes.append(result)
    if all_kernels:
        listed = {each.label for each in matches.values()} | after.left_out.keys()
        unmatched |= {each.label: "only before" for each in earlier if each.label not in listed}
    if not changes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unmatched.items())
        raise ValueError(
            f"No kernel of the model can be compared ({reasons}). "
            f"Received: against={type(before).__name__}"
        )
    return DriftReport(after, changes, unmatched, note)
