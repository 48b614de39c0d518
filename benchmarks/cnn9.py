"""Training step of CNN-9: time with energies against time with L2 alone."""

from typing import Any

import keras
import numpy as np

import keras_mhe
from benchmarks.contenders import papers_formula
from benchmarks.lazy import skips_energies
from benchmarks.timing import interleaved_times, microseconds_per_kernel, time_and_ratio
from keras_mhe._backend import on_cpu
from workloads.cnn9 import cnn9


class PapersFormula(keras.Regularizer):
    """The papers' formula as a regularizer."""

    def __init__(self, factor: float, half_space: bool) -> None:
        self.factor, self.half_space = factor, half_space

    def __call__(self, kernel: Any) -> Any:
        return self.factor * papers_formula(kernel, half_space=self.half_space)


# Regularizers of the hidden kernels and of the last one.
REGULARIZERS = {
    "L2": (None, None),
    "keras_mhe": (keras_mhe.HalfSpaceMHE(1.0), keras_mhe.MHE(10.0)),
    "keras_mhe, skipped": (keras_mhe.HalfSpaceMHE(1.0), keras_mhe.MHE(10.0)),
    "RP-CoMHE": (keras_mhe.CoMHE(), keras_mhe.MHE(10.0)),
    "RP-CoMHE, signs": (
        keras_mhe.CoMHE(projection=keras_mhe.RandomProjection(distribution="sign")),
        keras_mhe.MHE(10.0),
    ),
    "papers": (PapersFormula(1.0, True), PapersFormula(10.0, False)),
}


_KERNELS = 11


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each regularizer and way of compiling: seconds per step, ratio to L2."""
    width, batch = (8, 16) if quick else (64, 128)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, batch)
    rows = []
    # On TensorFlow, "auto" does not use XLA on a CPU. That step is faster, so ratios are larger.
    modes = ("auto", True) if keras.backend.backend() == "tensorflow" and not quick else ("auto",)
    for jit_compile in modes:
        models = {
            name: cnn9(*regularizers, width, jit_compile)
            for name, regularizers in REGULARIZERS.items()
        }
        skips_energies(models["keras_mhe, skipped"])
        times, _ = interleaved_times(
            {name: lambda m=m: m.train_on_batch(images, labels) for name, m in models.items()},
            rounds=3 if quick else 15,
            min_seconds=0.02 if quick else 1.0 if on_cpu() else 0.2,
        )
        rows += [
            {
                "regularizer": name,
                "batch": batch,
                "width": width,
                "jit_compile": jit_compile,
                **time_and_ratio(times, name, "L2"),
                "microseconds_per_kernel": microseconds_per_kernel(times, name, "L2", _KERNELS),
            }
            for name in models
        ]
    return rows
