"""Hyperspherical-energy regularization for Keras."""

from typing import TYPE_CHECKING

from keras_mhe import reference
from keras_mhe.analysis import EnergyMonitor, energy_report
from keras_mhe.energies import batch_energy, class_energy, hyperspherical_energy
from keras_mhe.initializers import MinimumEnergy, prototypes
from keras_mhe.layers import HypersphericalRegularization, Uniformity
from keras_mhe.models import EnergyEvery, FactorSchedule, regularize, unregularize
from keras_mhe.regularizers import (
    MGD,
    MHC,
    MHE,
    MHP,
    MHS,
    RMHP,
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    RandomProjection,
)

__version__ = "0.1.0"

__all__ = [
    "MGD",
    "MHC",
    "MHE",
    "MHP",
    "MHS",
    "RMHP",
    "AdversarialProjection",
    "AngleProjection",
    "CoMHE",
    "EnergyEvery",
    "EnergyMonitor",
    "FactorSchedule",
    "GroupProjection",
    "HalfSpaceMHE",
    "HypersphericalRegularization",
    "MinimumEnergy",
    "RandomProjection",
    "Uniformity",
    "__version__",
    "batch_energy",
    "class_energy",
    "energy_report",
    "hyperspherical_energy",
    "prototypes",
    "reference",
    "regularize",
    "unregularize",
]

if TYPE_CHECKING:
    from keras_mhe import plots as plots
else:

    def __getattr__(name: str) -> object:
        # The only public module that needs matplotlib, imported when it is first used.
        if name == "plots":
            import importlib

            return importlib.import_module("keras_mhe.plots")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Not in `__all__`: `from keras_mhe import *` must not hide `layers` and `models` of Keras.
_SUBPACKAGES = [
    "analysis",
    "energies",
    "initializers",
    "kernels",
    "layers",
    "models",
    "plots",
    "regularizers",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBPACKAGES])
