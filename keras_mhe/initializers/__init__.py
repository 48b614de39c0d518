"""Initial kernels and fixed class vectors whose neurons have low hyperspherical energy."""

from keras_mhe.initializers._minimum_energy import MinimumEnergy
from keras_mhe.initializers._prototypes import prototypes

__all__ = ["MinimumEnergy", "prototypes"]
