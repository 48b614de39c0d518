"""Training of CNN-9 on JAX: steps of `fit`, of one program for many steps, of seeds at once."""

import functools
from typing import Any

import keras
import numpy as np

from benchmarks.timing import interleaved_times, time_and_ratio
from keras_mhe import MHE, HalfSpaceMHE, regularize
from workloads.augmentation import AugmentedImages, draw, padded
from workloads.cnn9 import cnn9
from workloads.precision import dtype_policy

_SEEDS = 3


def _model(width: int) -> keras.Model:
    return regularize(cnn9(None, None, width, "auto"), HalfSpaceMHE(1.0), MHE(10.0)).model


def _fit(model: keras.Model, batches: AugmentedImages) -> np.ndarray:
    return np.array(model.fit(batches, shuffle=False, verbose=0).history["loss"])


class _Program:
    """Trains one model, or several at once, for some steps at each call."""

    def __init__(self, models: list[keras.Model], images: Any, labels: Any, steps: int) -> None:
        # It needs JAX, other measurements do not.
        from workloads import scan

        several = len(models) > 1
        self.program = scan.training_program(models[0], several)
        states = [scan.state_of(model) for model in models]
        draws = [draw(seed, 0, steps, len(labels)) for seed in range(len(models))]
        self.state, self.draws = (
            (scan.stack(states), scan.stack(draws)) if several else (states[0], draws[0])
        )
        self.images, self.labels = images, labels

    def __call__(self) -> Any:
        self.state, losses = self.program(self.state, self.images, self.labels, self.draws)
        return losses


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each precision and way of training: seconds per step and model."""
    if keras.backend.backend() != "jax":
        return []
    # It needs JAX, other measurements do not.
    from workloads import scan

    width, steps, count = (2, 1, 128) if quick else (64, scan.best_steps_per_call(100), 5120)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (count, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, count).astype("int32")
    images, labels = map(keras.ops.convert_to_tensor, (padded(x), y))
    rows = []
    for precision in ("float32",) if quick else ("float32", "mixed_bfloat16"):
        with dtype_policy(precision):
            models = [_model(width) for _ in range(_SEEDS + 1)]
        calls = {
            "scan": _Program(models[:1], images, labels, steps),
            "fit": functools.partial(_fit, models[-1], AugmentedImages(x, y, steps, 0)),
            "seeds at once": _Program(models[:_SEEDS], images, labels, steps),
        }
        times, compiling = interleaved_times(calls, 3 if quick else 10, 0.02 if quick else 0.2)
        for name in calls:
            per_call = steps * (_SEEDS if name == "seeds at once" else 1)
            row = time_and_ratio(times, name, "scan")
            rows.append(
                {
                    "trainer": name,
                    "precision": precision,
                    "width": width,
                    "steps_per_call": steps,
                    "models": _SEEDS if name == "seeds at once" else 1,
                    "seconds_per_step_and_model": row["seconds"] / per_call,
                    "seconds_to_compile": compiling[name],
                    **row,
                }
            )
    return rows
