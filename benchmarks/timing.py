"""Medians of interleaved rounds: what disturbs one contender disturbs its neighbours too."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def wait_for(result: Any) -> None:
    """Returns when the result is computed."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    if hasattr(first, "block_until_ready"):
        first.block_until_ready()
    else:
        keras.ops.convert_to_numpy(keras.ops.ravel(first)[:1])


def quartiles(values: Any) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    middle, low, high = np.percentile(values, [50, 25, 75])
    return float(middle), float(low), float(high)


def compared(times: dict[str, list[float]], name: str, against: str) -> dict[str, Any]:
    """Median seconds of a call, and its ratio to another within the same rounds."""
    ratio, low, high = quartiles(np.divide(times[name], times[against]))
    median = quartiles(times[name])[0]
    return {"seconds": median, "ratio": ratio, "ratio_quartiles": [low, high]}


def seconds(call: Callable[[], Any], least: float) -> float:
    """Mean time of a call, repeated until `least` seconds have passed."""
    start, calls = time.perf_counter(), 0
    while True:
        wait_for(call())
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= least:
            return elapsed / calls


def rounds(
    calls: dict[str, Callable[[], Any]], count: int, least: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Times of all calls, round by round, and what each first call took beyond a later one.

    Args:
        calls: functions without arguments, by name.
        count: number of rounds.
        least: seconds that a measurement takes at least.
    """
    first = {name: seconds(call, 0.0) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            times[name].append(seconds(call, least))
    return times, {name: first[name] - quartiles(times[name])[0] for name in calls}
