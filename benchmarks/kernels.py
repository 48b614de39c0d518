"""Value and gradient of kernels of many shapes, relative to the product of the kernel."""

from typing import Any

import keras
import numpy as np

from benchmarks.contenders import contenders
from benchmarks.device_memory import temporary_mib
from benchmarks.timing import program_times, time_and_ratio

SHAPES = [
    (576, 64),
    (1152, 128),
    (2304, 256),
    (4608, 512),
    (512, 1000),
    (2048, 1000),
    (512, 4000),
    (512, 20000),
]
QUICK_SHAPES = [(512, 1600)]


def measure(shape: tuple[int, int], quick: bool, few: bool = False) -> list[dict[str, Any]]:
    """Returns a row for each contender: seconds, and the ratio to the product of the same round.

    Args:
        shape: coordinates and neurons.
        quick: whether to measure a few rounds only, as a check.
        few: whether to measure powers of 2 only, in fewer and shorter rounds.
    """
    kernel = keras.ops.convert_to_tensor(
        np.random.default_rng(0).standard_normal(shape).astype("float32")
    )
    programs = contenders(shape, quick or few)
    large = shape[1] > 4000
    times, compilation = program_times(
        programs,
        kernel,
        rounds=3 if quick else 5 if large else 9 if few else 15,
        min_seconds=0.02 if quick else 0.05 if few else 0.1,
    )
    return [
        {
            "shape": list(shape),
            "contender": name,
            **time_and_ratio(times, name, "product"),
            "compilation_seconds": compilation[name],
            "temporary_mib": temporary_mib(program, kernel),
        }
        for name, program in programs.items()
    ]
