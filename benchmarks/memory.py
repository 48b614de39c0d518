"""Peak memory of a new process that computes one energy and its gradient."""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def _peak() -> float:
    """Returns the peak resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    # `getrusage` includes the memory that the parent process had when it started this one.
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _child(contender: str, dimension: int, n: int) -> None:
    import keras

    from benchmarks.contenders import papers_formula, value_and_gradient
    from benchmarks.timing import wait_for
    from keras_mhe import hyperspherical_energy

    energies = {
        "papers": papers_formula,
        "e2 half": lambda kernel: hyperspherical_energy(kernel, half_space=True),
    }
    kernel = np.random.default_rng(0).standard_normal((dimension, n)).astype("float32")
    tensor = keras.ops.convert_to_tensor(kernel)
    wait_for(tensor)
    before = _peak()
    start = time.perf_counter()
    wait_for(value_and_gradient(energies[contender], kernel.shape)(tensor))
    report = {"before_mib": before, "peak_mib": _peak(), "seconds": time.perf_counter() - start}
    print(json.dumps(report))  # noqa: T201


def measure(contender: str, dimension: int, n: int) -> dict[str, Any]:
    """Returns peak memory in MiB, before and after the first call, and the seconds of that call."""
    command = [sys.executable, "-m", "benchmarks.memory", contender, str(dimension), str(n)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(result.stdout.splitlines()[-1])
    return {"contender": contender, "shape": [dimension, n], **report}


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
