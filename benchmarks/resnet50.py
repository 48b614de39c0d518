"""Training step of ResNet50: time with every kernel regularized against time without."""

import time
from typing import Any

import keras
import numpy as np

from benchmarks.timing import interleaved_times, time_and_ratio
from keras_mhe import MHE, HalfSpaceMHE, regularize

_SAMPLES = {"exact": None, "sample=256": 256}


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each setting: seconds of a step, of `regularize`, and of compilation."""
    batch, size = (2, 64) if quick else (32, 224)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    labels = rng.integers(0, 1000, batch)
    models, regularize_seconds = {}, {}
    for name in ("none", *list(_SAMPLES)[: 1 if quick else None]):
        model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
        start = time.perf_counter()
        if name in _SAMPLES:
            sample = _SAMPLES[name]
            regularize(model, HalfSpaceMHE(1.0, sample=sample), MHE(10.0, sample=sample))
        regularize_seconds[name] = time.perf_counter() - start
        model.compile("sgd", "sparse_categorical_crossentropy")
        models[name] = model
    times, compilation = interleaved_times(
        {name: lambda m=m: m.train_on_batch(images, labels) for name, m in models.items()},
        rounds=1 if quick else 15,
        min_seconds=0.0,
    )
    return [
        {
            "energies": name,
            "batch": batch,
            "size": size,
            "regularize_seconds": regularize_seconds[name],
            "first_step_seconds": compilation[name],
            **time_and_ratio(times, name, "none"),
        }
        for name in models
    ]
