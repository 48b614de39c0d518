"""Training step of ResNet50: time with every kernel regularized against time without."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.lazy import skips_energies
from benchmarks.timing import interleaved_times, microseconds_per_kernel, time_and_ratio
from keras_mhe import MHE, CoMHE, HalfSpaceMHE, RandomProjection, regularize
from keras_mhe._backend import on_cpu
from workloads.precision import dtype_policy

# Regularizers of the hidden kernels and of the last one.
ENERGIES = {
    "exact": (HalfSpaceMHE(1.0), MHE(10.0)),
    "sample=256": (HalfSpaceMHE(1.0, sample=256), MHE(10.0, sample=256)),
    "skipped": (HalfSpaceMHE(1.0), MHE(10.0)),
    "RP-CoMHE": (CoMHE(1.0), MHE(10.0)),
    "RP-CoMHE, signs": (CoMHE(1.0, projection=RandomProjection(distribution="sign")), MHE(10.0)),
}


@dataclass(frozen=True)
class _Network:
    model: keras.Model
    kernels: int
    regularize_seconds: float


@functools.cache
def _network(energies: str, size: int) -> _Network:
    """The network, built once for each kind of energies: compiling a step takes long."""
    # Accelerators train in mixed precision.
    with dtype_policy("float32" if on_cpu() else "mixed_bfloat16"):
        model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    kernels, start = 0, time.perf_counter()
    if energies in ENERGIES:
        table = regularize(model, *ENERGIES[energies])
        kernels = sum(row.action == "regularized" for row in table.rows)
    seconds = time.perf_counter() - start
    model.compile("sgd", "sparse_categorical_crossentropy")
    if energies == "skipped":
        skips_energies(model)
    return _Network(model, kernels, seconds)


def measure(
    quick: bool, energies: Sequence[str] = ("exact", "sample=256", "skipped")
) -> list[dict[str, Any]]:
    """Returns a row for each kind of energies: seconds of a step, `regularize`, compilation."""
    batch, size = (2, 64) if quick else (32, 224) if on_cpu() else (256, 224)
    rng = np.random.default_rng(0)
    images = ops.convert_to_tensor(rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32"))
    labels = rng.integers(0, 1000, batch)
    networks = {name: _network(name, size) for name in ("none", *energies)}
    times, compilation = interleaved_times(
        {n: lambda m=x.model: m.train_on_batch(images, labels) for n, x in networks.items()},
        rounds=1 if quick else 15,
        min_seconds=0.0 if on_cpu() else 0.5,
    )
    rows = []
    for name, network in networks.items():
        row = {
            "energies": name,
            "batch": batch,
            "size": size,
            "policy": network.model.dtype_policy.name,
            "kernels": network.kernels,
            "regularize_seconds": network.regularize_seconds,
            "first_step_seconds": compilation[name],
            **time_and_ratio(times, name, "none"),
        }
        if network.kernels:
            added = microseconds_per_kernel(times, name, "none", network.kernels)
            row["microseconds_per_kernel"] = added
        rows.append(row)
    return rows
