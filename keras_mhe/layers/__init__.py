"""The layer wrapper."""

from keras_mhe.layers._wrapper import HypersphericalRegularization

__all__ = ["HypersphericalRegularization"]
