"""Chooses the learning rate and the number of steps of all runs on a card, from recorded runs."""

from experiments import cnn9
from experiments.durations import speed
from experiments.gpu_list import Setting, training
from experiments.records import Config, Record, config_key

# Rates and steps of warm-up: the papers' rate, then what replaces it if training fails. Without a
# warm-up, its loss overflows within 20 steps at full width, in float32 and bfloat16.
_RATES = ((0.1, 500), (0.03, 500))
# Steps of two short runs, which show the time of a step. All lengths are multiples of 20 * 125
# steps, so that one program of 125 steps serves the runs of equal length.
_LENGTHS = (2500, 5000)
# All runs have the papers' number of steps if that takes at most this long, compiling apart, else
# the second number.
_LIMIT_SECONDS, _FULL, _REDUCED = 120.0, 42_500, 20_000
# Results do not use the seed of the trials.
_SEED = 1000
FILE = "calibration.jsonl"


def trials(data: str, quick: bool) -> list[Config]:
    """Returns two short runs of the baseline."""
    return [
        {
            "experiment": "cnn9",
            # A step takes the same time at every rate. Recorded trials have no warm-up.
            **training(data, Setting(0.1, 0, steps), quick),
            "variant": "baseline",
            "seed": _SEED,
        }
        for steps in ((20, 40) if quick else _LENGTHS)
    ]


def setting(
    done: list[Record], runs: list[Record], data: str, quick: bool = False
) -> Setting | None:
    """Returns the first rate that is not known to fail, and the steps that time allows.

    A rate fails if a recorded baseline of full width and length ends near chance level. If all
    rates fail, the first one is used.

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
    if quick:
        return Setting(*_RATES[0], 20)
    measured = speed([recorded[key] for key in keys])
    assert measured is not None
    slow = measured.fixed + _FULL * measured.per_step > _LIMIT_SECONDS
    settings = [Setting(*rate, _REDUCED if slow else _FULL) for rate in _RATES]
    good = [each for each in settings if not any(_failed(run, each, data) for run in runs)]
    return (good or settings)[0]


def _failed(run: Record, setting: Setting, data: str) -> bool:
    """Whether a run is a baseline with this setting that has learned nothing."""
    config, parts = run["config"], training(data, setting, quick=False) | {"variant": "baseline"}
    assert cnn9.experiment.chance_level is not None
    limit = 1.5 * cnn9.experiment.chance_level(config)
    alike = all(config.get(part) == value for part, value in parts.items())
    return alike and run["figures"]["accuracy %"] <= limit
