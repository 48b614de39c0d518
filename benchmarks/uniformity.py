"""Measures of uniformity: value and gradient of one kernel, relative to half-space MHE."""

from typing import Any

import numpy as np
from keras import ops

from benchmarks.contenders import value_and_gradient
from benchmarks.timing import program_times, time_and_ratio
from keras_mhe import MGD, MHC, MHP, MHS, RMHP, HalfSpaceMHE

SHAPES = [(576, 64), (2304, 256), (512, 1000)]
QUICK_SHAPES = [(288, 32)]


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each contender and kernel: seconds, and the ratio to half-space MHE."""
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        rng = np.random.default_rng(0)
        kernel = ops.convert_to_tensor(rng.standard_normal(shape).astype("float32"))
        pole = {"pole": ops.convert_to_tensor(rng.standard_normal(shape[0]).astype("float32"))}
        functions = {
            "MHE": HalfSpaceMHE(),
            "MHS": MHS(half_space=True),
            "MHP worst": MHP(half_space=True, pole="worst"),
            "MHC worst": MHC(half_space=True, pole="worst"),
            "MGD": MGD(half_space=True),
            "RMHP": RMHP(),
        }
        for name, stateful in (("MHP", MHP(half_space=True)), ("MHC", MHC(half_space=True))):
            functions[name] = lambda k, r=stateful, pole=pole: r.energy(k, r.update_state(k, pole))
        programs = {name: value_and_gradient(f, shape) for name, f in functions.items()}
        times, compilation = program_times(
            programs,
            kernel,
            rounds=3 if quick else 11,
            min_seconds=0.02 if quick else 0.1,
        )
        rows += [
            {
                "shape": list(shape),
                "contender": name,
                **time_and_ratio(times, name, "MHE"),
                "compilation_seconds": compilation[name],
            }
            for name in programs
        ]
    return rows
