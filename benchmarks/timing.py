"""Medians over interleaved rounds: a disturbance affects all contenders of a round alike."""

import functools
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


def median_and_quartiles(values: Any) -> tuple[float, float, float]:
    """Returns the median, the lower and the upper quartile."""
    median, low, high = np.percentile(values, [50, 25, 75])
    return float(median), float(low), float(high)


def time_and_ratio(times: dict[str, list[float]], name: str, reference: str) -> dict[str, Any]:
    """Returns the median seconds of a call, and its ratio to the reference of the same round."""
    ratio, low, high = median_and_quartiles(np.divide(times[name], times[reference]))
    median = median_and_quartiles(times[name])[0]
    return {"seconds": median, "ratio": ratio, "ratio_quartiles": [low, high]}


def microseconds_per_kernel(
    times: dict[str, list[float]], name: str, reference: str, kernels: int
) -> float:
    """Returns the median time that a call takes longer than the reference, for each kernel."""
    added = np.subtract(times[name], times[reference])
    return median_and_quartiles(added)[0] * 1e6 / kernels


def seconds_per_call(call: Callable[[], Any], min_seconds: float) -> float:
    """Returns the mean time of a call, repeated for at least `min_seconds`."""
    start, calls = time.perf_counter(), 0
    while True:
        wait_for(call())
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= min_seconds:
            return elapsed / calls


def interleaved_times(
    calls: dict[str, Callable[[], Any]], rounds: int, min_seconds: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Measures all calls in each round.

    Args:
        calls: functions without arguments, by name.
        rounds: number of rounds.
        min_seconds: minimum duration of one measurement.

    Returns:
        The seconds per call of all rounds, by name; and by name how much longer the first call
        took than the median: the time of compilation.
    """
    first = {name: seconds_per_call(call, 0.0) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds_per_call(call, min_seconds))
    return times, {name: first[name] - median_and_quartiles(times[name])[0] for name in calls}


def program_times(
    programs: dict[str, Callable[[Any], Any]], argument: Any, rounds: int, min_seconds: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """As `interleaved_times`, for programs of one argument."""
    calls = {name: functools.partial(program, argument) for name, program in programs.items()}
    return interleaved_times(calls, rounds, min_seconds)
