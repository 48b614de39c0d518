"""Hyperspherical-energy regularization for Keras."""

from typing import TYPE_CHECKING, Any

from keras_mhe import reference
from keras_mhe.comhe import CoMHE
from keras_mhe.energy import hyperspherical_energy
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.learned import AdversarialProjection, AngleProjection
from keras_mhe.measuring import energy_report
from keras_mhe.models import regularize, unregularize
from keras_mhe.monitor import EnergyMonitor
from keras_mhe.polarization import MHC, MHP
from keras_mhe.projections import GroupProjection, RandomProjection
from keras_mhe.regularizers import MHE, HalfSpaceMHE
from keras_mhe.sampling import class_energy
from keras_mhe.uniformity import MGD, MHS, RMHP

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
    "EnergyMonitor",
    "GroupProjection",
    "HalfSpaceMHE",
    "HypersphericalRegularization",
    "RandomProjection",
    "__version__",
    "class_energy",
    "energy_report",
    "hyperspherical_energy",
    "reference",
    "regularize",
    "unregularize",
]

if TYPE_CHECKING:
    from keras_mhe import plots as plots
else:

    def __getattr__(name: str) -> Any:
        # The only module that needs matplotlib: imported when it is first named.
        if name == "plots":
            import importlib

            return importlib.import_module("keras_mhe.plots")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
