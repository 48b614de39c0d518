"""Report of all kernels: time relative to a training step, the cost of a monitor."""

from typing import Any

import keras
import numpy as np

from benchmarks.timing import interleaved_times, time_and_ratio
from keras_mhe import energy_report
from workloads.cnn9 import cnn9


def _small() -> keras.Model:
    """Builds a network for handwritten digits, whose training step is among the fastest."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def _resnet50() -> keras.Model:
    model = keras.applications.ResNet50(weights=None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    return model


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each network: seconds of a report, and its ratio to a training step."""
    networks: dict[str, tuple[Any, tuple[int, ...], int]] = {
        "small CNN": (_small, (32, 8, 8, 1), 11),
        "CNN-9": (lambda: cnn9(None, None, 8 if quick else 64, "auto"), (128, 32, 32, 3), 11),
    }
    if not quick:
        networks["ResNet50"] = (_resnet50, (32, 224, 224, 3), 5)
    rows = []
    for name, (build, shape, rounds) in networks.items():
        model = build()
        rng = np.random.default_rng(0)
        images = rng.uniform(-1, 1, shape).astype("float32")
        labels = rng.integers(0, 10, shape[0])
        times, _ = interleaved_times(
            {
                "step": lambda m=model, x=images, y=labels: m.train_on_batch(x, y),
                "report": lambda m=model: energy_report(m).summary["position_mean"],
            },
            rounds=3 if quick else rounds,
            min_seconds=0.02 if quick else 0.3,
        )
        row = {"network": name, "batch": shape[0], **time_and_ratio(times, "report", "step")}
        rows.append({**row, "step_seconds": float(np.median(times["step"]))})
    return rows
