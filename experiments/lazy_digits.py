"""Long-tailed digits with the energy of class vectors at every 4th, 8th or 16th step only."""

from experiments import imbalance
from experiments.experiment import Outcome
from experiments.lazy import INTERVALS, energy_every
from experiments.records import Config


def run(config: Config, source: str) -> Outcome:
    """Trains once, with the factor that this package recommends for class vectors."""
    variant = str(config["variant"])
    energy = "position 1" if INTERVALS[variant] else "baseline"
    return imbalance.train_and_test(config | {"variant": energy}, source, energy_every(variant))


experiment = imbalance.experiment._replace(
    name="lazy_digits",
    description=__doc__,
    run=run,
    variants=tuple(INTERVALS),
    main_metrics=("balanced accuracy %", "smallest angle of classes °"),
    grid=imbalance.experiment.grid | {"features": (3, 32)},
    page_rows=({"features": (32,)}, {"optimizer": ("adam",)}),
    plotted_variants=(),
)
