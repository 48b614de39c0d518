"""Measures what matters on a GPU, most important first, and continues where a run stopped."""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import (
    cnn9,
    device_tests,
    kernels,
    precision,
    projections,
    steps,
    sweep,
    trainer,
    uniformity,
)
from workloads.machine import describe_machine, file_stem


@dataclass(frozen=True)
class Case:
    """One measurement, which is written to the results as soon as it is done.

    Attributes:
        name: its name in the results.
        seconds: how long it takes on an H100. It does not start if less time is left.
        measure: returns the rows of the results.
    """

    name: str
    seconds: float
    measure: Callable[[], list[dict[str, Any]]]


def cases(quick: bool) -> list[Case]:
    """Returns all measurements, most important first."""

    def case(name: str, seconds: float, measure: Callable[..., Any], *arguments: Any) -> Case:
        return Case(name, seconds, functools.partial(measure, *arguments))

    tests = device_tests.QUICK_MODULES if quick else device_tests.MODULES
    found = [
        case(f"tests, {name}", limit, device_tests.measure, paths, limit)
        for name, (paths, limit) in tests.items()
    ]
    shapes = [(32, 300)] if quick else [*kernels.SHAPES, (512, 100000)]
    found += [
        case(f"kernels, {d} x {n}", 15.0, kernels.measure, (d, n), quick, True) for d, n in shapes
    ]
    found += [
        case(f"{network}, {energies}", 90.0, steps.measure, quick, [network], [energies], 5)
        for network, energies in (
            *(("ResNet50", "exact"), ("ResNet50", "RP-CoMHE"), ("transformer", "default")),
            *(("MobileNetV3", "default"), ("text", "default"), ("digits", "default")),
        )
    ]
    found += [
        case("CNN-9", 120.0, cnn9.measure, quick),
        case("trainer", 90.0, trainer.measure, quick),
        case("projections", 30.0, projections.measure, quick),
        case("uniformity", 45.0, uniformity.measure, quick),
    ]
    for name, module in (("panels", sweep), ("precision", precision)):
        shapes = module.QUICK_SHAPES if quick else module.SHAPES
        found += [
            case(f"{name}, {d} x {n}", 10.0, module.measure, (d, n), quick) for d, n in shapes
        ]
    return found


def _write(path: Path, results: dict[str, Any]) -> None:
    """Replaces the file in one step, so that a run that is stopped leaves a complete file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _is_done(case: dict[str, Any]) -> bool:
    """Whether a case in the results has all its rows, and no tests that were stopped."""
    return "rows" in case and all(row.get("finished", True) for row in case["rows"])


def run(minutes: float, quick: bool, out: Path, only: list[Case] | None = None) -> bool:
    """Runs all cases that the results in a folder lack, and returns whether all are done.

    Args:
        minutes: no case starts that would take longer than this in all.
        quick: whether to measure small sizes, as a check of the programs.
        out: folder of the results. Its file for this device and backend is continued.
        only: cases in place of those of this module.
    """
    end = time.monotonic() + 60 * minutes
    machine = describe_machine()
    console = Console(width=160)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu-{file_stem(machine)}{'-quick' if quick else ''}.json"
    results: dict[str, Any] = {"machines": [], "cases": {}}
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
    # Versions may differ between runs, so each case refers to its machine.
    if machine not in results["machines"]:
        results["machines"].append(machine)
    index = results["machines"].index(machine)
    missing = []
    for case in cases(quick) if only is None else only:
        if _is_done(results["cases"].get(case.name, {})):
            continue
        if time.monotonic() + case.seconds > end:
            missing.append(case.name)
            continue
        start = time.monotonic()
        try:
            outcome: dict[str, Any] = {"rows": case.measure()}
        except Exception as error:  # the next case may work
            outcome = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        seconds = round(time.monotonic() - start, 1)
        results["cases"][case.name] = {"machine": index, "seconds": seconds, **outcome}
        if not _is_done(outcome):
            missing.append(case.name)
        _write(path, results)
        console.print(f"{case.name}: {seconds} s {outcome.get('error', '')}")
    console.print(f"{path}; missing: {', '.join(missing) or 'none'}")
    return not missing
