"""Energies of a batch X: value and gradient, relative to the product of X with itself."""

from typing import Any

import numpy as np
from keras import ops

from benchmarks.contenders import value_and_gradient
from benchmarks.timing import program_times, time_and_ratio
from keras_mhe import MHS, batch_energy
from keras_mhe._backend import matmul
from keras_mhe.energies._batch import counted_points
from keras_mhe.energies._programs import program_for

SHAPE, QUICK_SHAPE = (4096, 256), (256, 32)


def _product(features: Any) -> Any:
    return matmul(features, ops.transpose(features))


def _koleo(features: Any) -> Any:
    points, n = counted_points(features, None, None)
    return MHS(measure="log").batch_program(points, n).energy(points)


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each contender: seconds, and the ratio to the product."""
    shape = QUICK_SHAPE if quick else SHAPE
    rng = np.random.default_rng(0)
    features = ops.convert_to_tensor(rng.standard_normal(shape).astype("float32"))
    counted = ops.convert_to_tensor(rng.uniform(size=shape[0]) < 0.9)
    labels = ops.convert_to_tensor(rng.integers(0, 100, shape[0]), "int32")
    functions = {
        "all points": batch_energy,
        "nine of ten points": lambda x: batch_energy(x, mask=counted),
        "means of 100 classes": lambda x: batch_energy(x, labels),
        "Gaussian": lambda x: batch_energy(x, distance="gaussian"),
        "KoLeo": _koleo,
    }
    programs = {name: value_and_gradient(f, shape) for name, f in functions.items()}
    programs = {"product": program_for(_product, features), **programs}
    times, compilation = program_times(
        programs,
        features,
        rounds=3 if quick else 11,
        min_seconds=0.02 if quick else 0.1,
    )
    return [
        {
            "shape": list(shape),
            "contender": name,
            **time_and_ratio(times, name, "product"),
            "compilation_seconds": compilation[name],
        }
        for name in programs
    ]
