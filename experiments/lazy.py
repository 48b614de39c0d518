"""CNN-9 with energies at every 4th, 8th or 16th step only: the same accuracy and positions?"""

from experiments import cnn9
from experiments.experiment import Experiment, Outcome
from experiments.records import Config
from keras_mhe import EnergyEvery
from workloads.cnn9 import cnn9 as network

# Steps from one energy to the next; None means that there is no energy.
INTERVALS: dict[str, int | None] = {
    "every step": 1,
    "every 4th": 4,
    "every 8th": 8,
    "every 16th": 16,
    "no energy": None,
}


def energy_every(variant: str) -> list[EnergyEvery]:
    """Returns the callback of a variant in a list, which is empty without one."""
    interval = INTERVALS[variant] or 1
    return [EnergyEvery(interval)] if interval > 1 else []


def run(config: Config, source: str) -> Outcome:
    """Trains once, with the factor that this package recommends in hidden layers."""
    variant = str(config["variant"])
    energy = "position 0.1 (hidden)" if INTERVALS[variant] else "baseline"
    callbacks = energy_every(variant)
    return cnn9.train_and_test(network, config | {"variant": energy}, source, callbacks)


experiment = Experiment(
    "lazy",
    __doc__,
    run,
    tuple(INTERVALS),
    main_metrics=("accuracy %", "mean position"),
    grid=cnn9.experiment.grid,
    quick_grid=cnn9.experiment.quick_grid,
    chance_level=cnn9.experiment.chance_level,
)
