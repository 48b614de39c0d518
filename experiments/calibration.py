"""Finds a learning rate that trains the baseline, and how many steps a run can have, once a card.

With the papers' rate of 0.1, CNN-9 of full width failed within 2,000 steps in three early trials.
"""

from experiments.durations import speed
from experiments.gpu_list import Setting, training
from experiments.records import Config, Record, config_key

# Rates and steps of warm-up, in the order of preference at equal accuracy.
_RATES = ((0.1, 0), (0.1, 500), (0.03, 0), (0.01, 500))
# Steps of the trials of rates, and of the longer trial that shows the time of a step. All lengths
# are multiples of 20 * 125 steps, so that programs of 125 steps can be reused.
_STEPS, _LONGER = 2500, 5000
# All runs have the papers' number of steps if that takes at most this long, compiling apart, else
# the second number.
_LIMIT_SECONDS, _FULL, _REDUCED = 120.0, 42_500, 20_000
# Results do not use the seed of the trials.
_SEED = 1000
FILE = "calibration.jsonl"


def _trial(data: str, rate: float, warmup: int, steps: int, quick: bool) -> Config:
    common = training(data, Setting(rate, warmup, steps), quick)
    return {"experiment": "cnn9", **common, "variant": "baseline", "seed": _SEED}


def trials(data: str, quick: bool) -> list[Config]:
    """Returns short runs of the baseline: one with each rate, then a longer one."""
    rates = _RATES[2:3] if quick else _RATES
    steps, longer = (20, 40) if quick else (_STEPS, _LONGER)
    lengths = [*((*rate, steps) for rate in rates), (*rates[-1], longer)]
    return [_trial(data, *length, quick) for length in lengths]


def setting(
    done: list[Record], runs: list[Record], data: str, quick: bool = False
) -> Setting | None:
    """Returns the rate with the highest accuracy, and the number of steps that time allows.

    A rate is left out if a full run of the baseline with it was recorded and is less accurate than
    its trial: it failed later. If this is so for all rates, the best one is used.

    Args:
        done: recorded trials on the card.
        runs: recorded runs of CNN-9 on the card.
        data: name of the images.
        quick: whether the trials are those of a check.

    Returns:
        The setting of all runs, or None if a trial is missing.
    """
    recorded = {config_key(record["config"]): record for record in done}
    keys = [config_key(trial) for trial in trials(data, quick)]
    if not recorded.keys() >= set(keys):
        return None
    found = [recorded[key] for key in keys]
    best = sorted(found[:-1], key=lambda trial: -_accuracy(trial))
    good = [trial for trial in best if not any(_failed(run, trial) for run in runs)]
    rate, warmup = ((good or best)[0]["config"][part] for part in ("rate", "warmup"))
    if quick:
        return Setting(rate, warmup, 20)
    measured = speed(found)
    assert measured is not None
    slow = measured.fixed + _FULL * measured.per_step > _LIMIT_SECONDS
    return Setting(rate, warmup, _REDUCED if slow else _FULL)


def _accuracy(record: Record) -> float:
    return float(record["figures"]["accuracy %"])


def _failed(run: Record, trial: Record) -> bool:
    """Whether a longer run is like a trial and less accurate."""
    parts = {k: v for k, v in trial["config"].items() if k not in ("steps", "seed")}
    return _accuracy(run) < _accuracy(trial) and all(
        run["config"].get(part) == value for part, value in parts.items()
    )
