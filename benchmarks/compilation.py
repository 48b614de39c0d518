"""What compiling costs: the first step of a deep network, and the memory of many settings."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_ROUNDS = 3
# Powers, distances of softening and seeds, in equal parts.
_SETTINGS = 1200


def _network(energies: bool) -> dict[str, float]:
    """The seconds of the first training step, which compiles it, in this new process."""
    import keras

    from keras_mhe import regularize

    model = keras.applications.DenseNet121(weights=None, input_shape=(64, 64, 3), classes=10)
    if energies:
        regularize(model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    start = time.perf_counter()
    model.train_on_batch(np.zeros((2, 64, 64, 3), "float32"), np.zeros(2))
    return {"seconds": time.perf_counter() - start, "kernels": len(model.losses)}


def _resident() -> float:
    """Resident memory of this process in MiB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _sweep(settings: int) -> dict[str, float]:
    """How much memory settings of regularizers add that differ in numbers."""
    from keras_mhe import MHE, CoMHE, HalfSpaceMHE, RandomProjection

    kernel = np.random.default_rng(0).standard_normal((50, 20)).astype("float32")

    def losses(i: int) -> None:
        share = i / settings
        HalfSpaceMHE(s=2.5 + share)(kernel)
        MHE(softening=0.01 + share)(kernel)
        CoMHE(projection=RandomProjection(4, 3, seed=i))(kernel)

    losses(0)
    before = _resident()
    for i in range(settings // 3):
        losses(i)
    return {"settings": settings, "added_mib": _resident() - before}


def _in_new_process(*arguments: Any) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.compilation", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return report


def measure(quick: bool) -> dict[str, Any]:
    """Returns first steps of DenseNet121, with and without energies in turn, and the sweep."""
    rounds = 1 if quick else _ROUNDS
    pairs = [(_in_new_process("network", 0), _in_new_process("network", 1)) for _ in range(rounds)]
    ratios = [regularized["seconds"] / bare["seconds"] for bare, regularized in pairs]
    return {
        "network": "DenseNet121",
        "kernels": pairs[0][1]["kernels"],
        "seconds_without": float(np.median([bare["seconds"] for bare, _ in pairs])),
        "seconds": float(np.median([regularized["seconds"] for _, regularized in pairs])),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(np.quantile(ratios, q)) for q in (0.25, 0.75)],
        **_in_new_process("sweep", _SETTINGS // 20 if quick else _SETTINGS),
    }


if __name__ == "__main__":
    kind, number = sys.argv[1], int(sys.argv[2])
    result = _network(bool(number)) if kind == "network" else _sweep(number)
    print(json.dumps(result))  # noqa: T201
