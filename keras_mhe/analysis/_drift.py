"""Compares the kernels of a model with those of an earlier model or report."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterator
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
from keras_mhe.analysis._measurement import Measurement, measurement_of
from keras_mhe.analysis._neuron_statistics import neuron_turns
from keras_mhe.analysis._report import KernelReport, Report
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.kernels._model import ModelKernel, check_model, find_kernels
from keras_mhe.kernels._named_axes import NamedAxes, with_named_axes

# The arguments that define a potential.
_POTENTIAL = [field.name for field in dataclasses.fields(PotentialSpec)]


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


def _aligned(
    now: list[_Candidate], earlier: list[_Candidate], key: Callable[[_Candidate], Any]
) -> Iterator[tuple[_Candidate, _Candidate]]:
    """Pairs of kernels with equal keys, in the same order."""
    keys = [list(map(key, side)) for side in (now, earlier)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        for i in range(block.size):
            yield now[block.a + i], earlier[block.b + i]


def _sizes(candidate: _Candidate) -> Any:
    return candidate.kernel, candidate.sizes


def _sizes_and_stem(candidate: _Candidate) -> Any:
    """The sizes, and the names without the numbers that Keras appends to them."""
    stem = [re.sub(r"_\d+$", "", part) for part in candidate.layer.split("/")]
    return *_sizes(candidate), *stem


def _pairs(now: list[_Candidate], earlier: list[_Candidate]) -> list[tuple[_Candidate, _Candidate]]:
    """Each kernel with its counterpart.

    Names decide if both models have the same ones. Otherwise, all kernels are matched by their
    order if their sizes agree: Keras numbers the names of layers in one process, so two models of
    one function differ in names. If they do not agree, equal names are matched first, and then
    names that differ only in their numbers, in their order.
    """
    named = {each.label: each for each in earlier}
    if {each.label for each in now} == named.keys():
        return [(each, named[each.label]) for each in now]
    pairs = list(_aligned(now, earlier, _sizes))
    if len(pairs) == len(now) == len(earlier):
        return pairs
    same = [each for each in now if each.label in named and each.sizes == named[each.label].sizes]
    taken = {each.label for each in same}
    rest = [[each for each in side if each.label not in taken] for side in (now, earlier)]
    by_order = list(_aligned(rest[0], rest[1], _sizes_and_stem))
    matched = {each.label for pair in by_order for each in pair}
    # Of different sizes: the report says so.
    left = [each for each in rest[0] if each.label in named and each.label not in matched]
    return by_order + [(each, named[each.label]) for each in same + left]


def _note_on_names(pairs: list[tuple[_Candidate, _Candidate]]) -> str:
    """A sentence if names did not decide about all pairs, or ""."""
    renamed = [(mine, theirs) for mine, theirs in pairs if mine.label != theirs.label]
    if not renamed:
        return ""
    more = f", and {len(renamed) - 1} more." if renamed[1:] else "."
    return (
        "Names of layers differ, so kernels were matched by their order: "
        f"{renamed[0][0].layer} was {renamed[0][1].layer}{more}"
    )


def _compare_kernels(row: KernelReport, now: _Candidate, before: _Candidate) -> KernelChange | str:
    """The change of a kernel, or the reason why it cannot be compared."""
    ours: ModelKernel = measurement_of(now.source.found, row.role, {}).found
    theirs: NamedKernel = before.source
    found, axes = theirs.found, (ours.kernel.neuron_axis, ours.kernel.groups)
    if ours.axes_named:
        kernel = found.kernel._replace(neuron_axis=axes[0], groups=axes[1])
        found = found._replace(kernel=kernel)
    reason = reason_to_leave_out(found.kernel, requested=True)
    if reason is not None:
        return f"before: {reason}"
    if ours.kernel.shape != found.kernel.shape:
        return f"shape {found.kernel.shape} before and {ours.kernel.shape} after"
    if axes != (found.kernel.neuron_axis, found.kernel.groups):
        return "other axes or groups of neurons before"
    # With the same potential, even if the kernel was in the output layer before and is hidden now.
    spec = PotentialSpec(**{name: getattr(row, name) for name in _POTENTIAL})
    earlier = kernel_report(theirs.layer, row.role, Measurement(found, spec, row.regularizer))
    turns = neuron_turns(kernel_array(found.kernel), kernel_array(ours.kernel))
    return KernelChange(earlier, row, turns)


def _compare_rows(row: KernelReport, before: _Candidate) -> KernelChange | str:
    """The change of a row of a report, or the reason why it cannot be compared."""
    earlier: KernelReport = before.source
    for name in ("groups", "dimension", "neurons", *_POTENTIAL):
        if getattr(row, name) != getattr(earlier, name):
            if name == "half_space":
                return f"{earlier.space} space before and {row.space} space after"
            return f"{name} {getattr(earlier, name)} before and {getattr(row, name)} after"
    return KernelChange(earlier, row, None)


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
        now, earlier = _candidates_of_report(after), _candidates_of_report(before)
    else:
        now, earlier = _candidates_of_model(model, axes), _candidates_of_model(before)
    pairs = _pairs(now, earlier)
    matches = {mine.label: theirs for mine, theirs in pairs}
    known = {each.label: each for each in now}

    def compare(row: KernelReport, label: str) -> KernelChange | str:
        if label not in matches:
            return "only after"
        if isinstance(before, Report):
            return _compare_rows(row, matches[label])
        return _compare_kernels(row, known[label], matches[label])

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
    return DriftReport(after, changes, unmatched, _note_on_names(pairs))
