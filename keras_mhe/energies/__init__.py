"""Energies of kernels: functions from tensors to scalars, with analytic gradients."""

from keras_mhe.energies._energy import hyperspherical_energy
from keras_mhe.energies._minibatch import class_energy

__all__ = ["class_energy", "hyperspherical_energy"]
