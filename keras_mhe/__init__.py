"""Hyperspherical-energy regularization for Keras."""

from keras_mhe.comhe import CoMHE
from keras_mhe.energy import hyperspherical_energy
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.learned import AdversarialProjection, AngleProjection
from keras_mhe.projections import GroupProjection, RandomProjection
from keras_mhe.regularizers import MHE, HalfSpaceMHE
from keras_mhe.sampling import class_energy

__version__ = "0.1.0"

__all__ = [
    "MHE",
    "AdversarialProjection",
    "AngleProjection",
    "CoMHE",
    "GroupProjection",
    "HalfSpaceMHE",
    "HypersphericalRegularization",
    "RandomProjection",
    "__version__",
    "class_energy",
    "hyperspherical_energy",
]
