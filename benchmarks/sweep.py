"""Value and gradient by one matrix and by panels of several widths."""

import functools
from typing import Any

import keras
import numpy as np

from benchmarks.contenders import compiled
from benchmarks.device_memory import temporary_mib
from benchmarks.timing import program_times, time_and_ratio
from keras_mhe.energies import _pair_sums, _pairs
from keras_mhe.energies._neurons import tangent_gradient, unit_neurons
from keras_mhe.energies._potential import PotentialSpec

SHAPES = [(512, n) for n in (2000, 4000, 8000, 16000, 20000, 50000, 100000)]
QUICK_SHAPES = [(32, 1500)]
_WIDTHS = [1024, 2048, 4096, 8192]
# For more neurons, one matrix of all pairs needs several gigabytes.
_LARGEST_MATRIX = 16384


def value_and_gradient(matrix: Any, width: int | None) -> Any:
    """Half-space energy and its gradient, by panels of a width, or by one matrix for `None`."""
    potential = PotentialSpec(half_space=True).of_neurons(matrix)
    n = matrix.shape[-1]
    unit, reciprocal = unit_neurons(matrix)
    if width is None:
        sums, gradient = _pair_sums._sums_by_matrix(unit, potential)
    else:
        sums, gradient = _pair_sums._sums_by_panels(unit, potential, width)
    value, weight = _pairs.mean_over_points(sums, n * (n - 1), n, potential)
    return value, tangent_gradient(unit, reciprocal, gradient, 2.0 * weight)


def measure(shape: tuple[int, int], quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each width: seconds, the ratio to the package's own width, memory."""
    n = shape[1]
    widths = {str(width): width for width in _WIDTHS if n / 16 < width < n}
    own = _pair_sums.panel_width(n)
    if own is None or n <= _LARGEST_MATRIX:
        widths["one matrix"] = None
    reference = next((name for name, width in widths.items() if width == own), "default")
    widths.setdefault(reference, own)
    kernel = keras.ops.convert_to_tensor(
        np.random.default_rng(0).standard_normal(shape).astype("float32")
    )
    programs = {
        name: compiled(functools.partial(value_and_gradient, width=width), shape)
        for name, width in widths.items()
    }
    times, _ = program_times(
        programs,
        kernel,
        rounds=3 if quick or n > 20000 else 7,
        min_seconds=0.02 if quick else 0.05,
    )
    return [
        {
            "shape": list(shape),
            "width": name,
            "own": name == reference,
            **time_and_ratio(times, name, reference),
            "temporary_mib": temporary_mib(program, kernel),
        }
        for name, program in programs.items()
    ]
