"""Hyperspherical-energy regularization for Keras."""

from keras_mhe.energy import hyperspherical_energy
from keras_mhe.regularizers import MHE, HalfSpaceMHE

__version__ = "0.1.0"

__all__ = ["MHE", "HalfSpaceMHE", "__version__", "hyperspherical_energy"]
