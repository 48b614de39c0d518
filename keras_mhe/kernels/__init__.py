"""Finds the weights that have neurons: the kernels of a layer and of a model."""

from keras_mhe.kernels._layer import Kernel, layer_kernels
from keras_mhe.kernels._model import ModelKernel, find_kernels

__all__ = ["Kernel", "ModelKernel", "find_kernels", "layer_kernels"]
