"""The numerical tests of the package on this device, in a process of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

# Files and folders by name, and the seconds after which their tests are stopped.
MODULES = {
    "papers": (["tests/test_papers.py"], 45.0),
    "energies": (["tests/test_backend.py", "tests/energies"], 60.0),
    "regularizers": (["tests/regularizers"], 60.0),
}
QUICK_MODULES = {"backend": (["tests/test_backend.py"], 200.0)}
_ROOT = Path(__file__).parents[1]
_OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED|XFAIL) (tests/.*?)\s*$")
# Choosing the fastest algorithms takes most of the time of compiling for a GPU.
_XLA_FLAGS = "--xla_gpu_autotune_level=0"


def _reasons(lines: list[str]) -> list[str]:
    """Returns the name and the first lines of each error that pytest printed at the end."""
    reasons: list[list[str]] = []
    for line in lines:
        if title := re.fullmatch(r"_{3,} (.*) _{3,}", line):
            reasons.append([title[1]])
        elif reasons and line.startswith("E   ") and line[4:].strip() and len(reasons[-1]) < 9:
            reasons[-1].append(line[4:].strip()[:200])
    return ["; ".join(parts) for parts in reasons]


def measure(paths: list[str], seconds: float) -> list[dict[str, Any]]:
    """Returns a row: how many tests had each outcome, which failed, and why.

    Args:
        paths: test files and folders, relative to the root of the repository.
        seconds: time after which the tests are stopped. Then `finished` is False.
    """
    workers = max(1, min(12, (os.cpu_count() or 1) - 2))
    options = ["-v", "-m", "not slow", "--tb=short", "-rN", "-p", "no:cacheprovider"]
    options += ["-W", "default", "-o", "addopts=--import-mode=importlib"]
    options += [f"--numprocesses={workers}"]
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *paths],
        cwd=_ROOT,
        env=os.environ | {"XLA_FLAGS": _XLA_FLAGS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        # The workers are in the same group of processes.
        timer = threading.Timer(seconds, os.killpg, [process.pid, signal.SIGKILL])
        timer.start()
        lines = process.communicate()[0].splitlines()
        timer.cancel()
    outcomes = {
        match[2]: match[1].lower() for match in map(_OUTCOME.search, lines) if match is not None
    }
    if not outcomes:
        raise RuntimeError(f"pytest ran no tests: {' / '.join(lines[-3:])}")
    return [
        {
            "paths": paths,
            "finished": process.returncode in (0, 1),
            **Counter(outcomes.values()),
            "failures": [name for name, x in outcomes.items() if x in ("failed", "error")],
            "reasons": _reasons(lines),
        }
    ]
