"""A training step of ResNet50 with every kernel regularized: what that adds to it."""

import time
from typing import Any

import keras
import numpy as np

from benchmarks.timing import compared, rounds
from keras_mhe import MHE, HalfSpaceMHE, regularize

_SAMPLES = {"exact": None, "sample=256": 256}


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each way: seconds of a step, of `regularize`, and of the first step beyond that."""
    batch, size = (2, 64) if quick else (32, 224)
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    labels = generator.integers(0, 1000, batch)
    models, regularizing = {}, {}
    for name in ("none", *list(_SAMPLES)[: 1 if quick else None]):
        model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
        start = time.perf_counter()
        if name in _SAMPLES:
            sample = _SAMPLES[name]
            regularize(model, HalfSpaceMHE(1.0, sample=sample), MHE(10.0, sample=sample))
        regularizing[name] = time.perf_counter() - start
        model.compile("sgd", "sparse_categorical_crossentropy")
        models[name] = model
    times, compiling = rounds(
        {name: lambda m=m: m.train_on_batch(images, labels) for name, m in models.items()},
        count=1 if quick else 15,
        least=0.0,
    )
    return [
        {
            "energies": name,
            "batch": batch,
            "size": size,
            "regularize_seconds": regularizing[name],
            "first_step_seconds": compiling[name],
            **compared(times, name, "none"),
        }
        for name in models
    ]
