"""Roles of kernels in a model, and the space in which a role compares neurons."""

from collections.abc import Iterable

import keras

from keras_mhe.kernels._model import ModelKernel


def role_of(found: ModelKernel, outputs: Iterable[keras.layers.Layer]) -> str:
    """`"output"` for a kernel of one of the output layers, `"hidden"` for any other."""
    return "output" if found.belongs_to(outputs) else "hidden"


def is_half_space(found: ModelKernel, role: str) -> bool:
    """Whether a neuron and its negative are redundant: in hidden layers, not as embeddings."""
    return role == "hidden" and found.kernel.attribute != "embeddings"
