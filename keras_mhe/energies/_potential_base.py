"""The base of all potentials: pairs, points with and without mirror images, and their mean."""

import abc
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import at_least
from keras_mhe._typing import Tensor


class Potential(abc.ABC):
    """The energy of a pair of neurons as a function of their cosine.

    In half space the energy of a pair is `f(c) + f(-c)`, because each neuron also has a mirror
    image.
    """

    half_space: bool
    # `f(-1)`, the energy of a neuron and its own mirror image.
    antipodal: Any
    # Whether the mean may underflow in float32, unless values are relative to the largest of them.
    may_underflow = False
    # Whether slopes take few operations without the values, and the values without the slopes.
    cheap_slopes = False

    @abc.abstractmethod
    def __call__(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Values and derivatives with respect to the cosine, elementwise."""

    @abc.abstractmethod
    def values(self, cosine: np.ndarray) -> np.ndarray:
        """Values without derivatives, elementwise, by NumPy in float64 on every backend."""

    def shares(self, n: int | Tensor) -> tuple[Any, Any]:
        """The weight of the mean over pairs in the mean over points, and a constant to add.

        In half space the mean is over 2n points. For each of them, one of the other `2n - 1`
        points is its own mirror image, with a constant energy. A single neuron has no pairs.

        Args:
            n: number of neurons, an integer or a scalar tensor. A tensor may be zero.
        """
        if isinstance(n, int):
            if self.half_space:
                return (n - 1) / (2 * n - 1), self.antipodal / (2 * n - 1)
            return float(n > 1), 0.0
        n = ops.cast(n, keras.backend.result_type(n.dtype, "float32"))
        if self.half_space:
            others = at_least(2.0 * n - 1.0, 1.0)
            constant = ops.cast(n > 0, n.dtype) * self.antipodal / others
            return at_least(n - 1.0, 0.0) / others, constant
        return ops.cast(n > 1, n.dtype), 0.0

    def energy_and_rate(self, mean: Tensor) -> tuple[Tensor, Any]:
        """The energy for a mean over points, and its derivative."""
        return mean, 1.0

    def energy_from_mean(self, mean: float, n: int) -> float:
        """The energy of n neurons from the mean over their pairs, in float64."""
        share, constant = self.shares(n)
        return share * mean + constant
