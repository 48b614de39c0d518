"""The layer wrapper, and the layer for the points of a batch."""

from keras_mhe.layers._uniformity import Uniformity
from keras_mhe.layers._wrapper import HypersphericalRegularization

__all__ = ["HypersphericalRegularization", "Uniformity"]
