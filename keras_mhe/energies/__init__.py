"""The energies of neurons and of points, as functions."""

from keras_mhe.energies._batch import batch_energy
from keras_mhe.energies._energy import hyperspherical_energy
from keras_mhe.energies._minibatch import class_energy

__all__ = ["batch_energy", "class_energy", "hyperspherical_energy"]
