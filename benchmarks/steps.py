"""Training steps of several networks: time with energies of every kernel against time without."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from benchmarks.lazy import skips_energies
from benchmarks.timing import interleaved_times, microseconds_per_kernel, time_and_ratio
from keras_mhe import MHE, CoMHE, HalfSpaceMHE, RandomProjection, regularize
from keras_mhe._backend import on_cpu
from workloads.networks import NETWORKS, Workload, workload

# Regularizers of the hidden kernels and of the last one; nothing for the defaults of `regularize`.
ENERGIES: dict[str, tuple[Any, ...]] = {
    "default": (),
    "exact": (HalfSpaceMHE(1.0), MHE(10.0)),
    "sample=256": (HalfSpaceMHE(1.0, sample=256), MHE(10.0, sample=256)),
    "skipped": (HalfSpaceMHE(1.0), MHE(10.0)),
    "RP-CoMHE": (CoMHE(1.0), MHE(10.0)),
    "RP-CoMHE, signs": (CoMHE(1.0, projection=RandomProjection(distribution="sign")), MHE(10.0)),
}
# Where all pairs or their projections take seconds, only these are measured.
_FEW = {"text": ("default", "skipped"), "transformer": ("default", "exact", "skipped")}


def _call(network: Workload) -> Callable[[], Any]:
    inputs, labels = map(ops.convert_to_tensor, (network.inputs, network.labels))
    return lambda: network.model.train_on_batch(inputs, labels)


def measure(
    quick: bool,
    networks: Sequence[str] = tuple(NETWORKS),
    energies: Sequence[str] = tuple(ENERGIES),
    rounds: int = 15,
) -> list[dict[str, Any]]:
    """Returns a row for each network and kind of energies: seconds of first and later steps."""
    # Accelerators train in mixed precision.
    policy = "float32" if on_cpu() else "mixed_bfloat16"
    rows = []
    for name in networks:
        calls, kernels, seconds = {}, {}, {}
        for kind in ("none", *(each for each in energies if each in _FEW.get(name, energies))):
            network = workload(name, policy, quick)
            start, kernels[kind] = time.perf_counter(), 0
            if kind != "none":
                table = regularize(network.model, *ENERGIES[kind])
                kernels[kind] = sum(row.action == "regularized" for row in table.rows)
            seconds[kind] = time.perf_counter() - start
            if kind == "skipped":
                skips_energies(network.model)
            calls[kind] = _call(network)
        times, compilation = interleaved_times(
            calls,
            rounds=1 if quick else rounds,
            min_seconds=0.0 if quick else 0.3,
        )
        for kind in calls:
            row = {
                "network": name,
                "energies": kind,
                "batch": len(network.inputs),
                "policy": policy,
                "kernels": kernels[kind],
                "regularize_seconds": seconds[kind],
                "first_step_seconds": compilation[kind],
                **time_and_ratio(times, kind, "none"),
            }
            if kernels[kind]:
                added = microseconds_per_kernel(times, kind, "none", kernels[kind])
                row["microseconds_per_kernel"] = added
            rows.append(row)
        keras.utils.clear_session(free_memory=True)
    return rows
