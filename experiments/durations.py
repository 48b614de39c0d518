"""How long runs take: estimates from recorded runs, and the time in XLA's compiler."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import keras

from experiments.records import Config, Record, config_key

# Floating-point operations of a training step of width 64, batch 128: forward and backward pass.
_STEP_FLOP = {"cnn9": 205e9, "imbalanced_cnn9": 205e9, "resnet32": 850e9}
# ResNet-32 has more bytes of activations for each operation, so its steps take longer than those
# of CNN-9 by more than the ratio of operations. Assumed, not measured.
_SLOWER = {"resnet32": 2.0}
# What an H100 is assumed to reach per second, before anything is measured.
_FLOP_PER_SECOND = {"bfloat16": 100e12, "float32": 30e12}
_COMPILE_SECONDS = 60.0
# An experiment without a count of operations.
_OTHER_SECONDS = 90.0
# Parts of a config on which the duration does not depend.
_FREE_PARTS = ("variant", "seed", "rate", "warmup", "imbalance", "images")


class Speed(NamedTuple):
    """Measured seconds of CNN-9 at width 64 in bfloat16.

    A run takes `fixed + steps * per_step`, and `compiling` more if no earlier run was equal.
    """

    compiling: float
    fixed: float
    per_step: float


def speed(records: Iterable[Record]) -> Speed | None:
    """Returns the speed that runs of two lengths show, or None without two lengths."""
    net: dict[int, float] = {}
    compiling = 0.0
    for record in records:
        steps, compiled = int(record["config"]["steps"]), record.get("compile_seconds", 0.0)
        # The first run on a card is longer, because it includes the start of libraries.
        net[steps] = min(net.get(steps, math.inf), record["seconds"] - compiled)
        compiling = max(compiling, compiled)
    if len(net) < 2:
        return None
    short, long = min(net), max(net)
    per_step = max(0.0, (net[long] - net[short]) / (long - short))
    return Speed(compiling, net[long] - long * per_step, per_step)


def _kind(config: Config) -> str:
    return config_key({k: v for k, v in config.items() if k not in _FREE_PARTS})


def expected_seconds(config: Config, records: Iterable[Record], measured: Speed | None) -> float:
    """Estimates the seconds of a run.

    The longest recorded run of the same variant counts, else that of any variant, else the speed
    of CNN-9 times the ratio of operations, else the number of operations.

    Args:
        config: the run.
        records: recorded runs on the same card.
        measured: the speed of CNN-9 on this card.
    """
    alike = [record for record in records if _kind(record["config"]) == _kind(config)]
    same = [each for each in alike if each["config"]["variant"] == config["variant"]]
    if alike:
        return float(max(record["seconds"] for record in same or alike))
    name = str(config["experiment"])
    if name not in _STEP_FLOP:
        return _OTHER_SECONDS
    cnn9, peak = _STEP_FLOP["cnn9"], _FLOP_PER_SECOND["bfloat16"]
    compiling, fixed, per_step = measured or (_COMPILE_SECONDS, 0.0, cnn9 / peak)
    slower = _SLOWER.get(name, 1.0) * _STEP_FLOP[name] / cnn9 * (int(config["width"]) / 64) ** 2
    slower *= peak / _FLOP_PER_SECOND[str(config["precision"])]
    return compiling + fixed + int(config["steps"]) * per_step * slower


class CompileClock:
    """Sums the seconds that JAX spends in XLA's compiler; zero on other backends."""

    def __init__(self) -> None:
        self.seconds = 0.0
        if keras.backend.backend() == "jax":
            import jax

            jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.seconds += seconds
