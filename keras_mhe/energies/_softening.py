"""The distance below which a potential is continued linearly."""

import math
from typing import Any

import numpy as np
from keras import ops

from keras_mhe._arguments import check_nonnegative
from keras_mhe._backend import at_least, at_most
from keras_mhe._typing import Tensor

# Upper limit of epsilon for any number of neurons.
_LARGEST_EPSILON = 0.1


def check_softening(softening: float | str) -> float | str:
    """Returns a distance, or "auto"."""
    if isinstance(softening, str):
        if softening == "auto":
            return softening
        raise ValueError(
            'Invalid value for argument `softening`. Expected "auto" or a distance below sqrt(2). '
            f"Received: softening={softening!r}"
        )
    distance = check_nonnegative(softening, "softening")
    if distance >= math.sqrt(2):
        raise ValueError(
            "Invalid value for argument `softening`. Expected a distance below sqrt(2), the "
            f"distance of orthogonal neurons. Received: softening={softening!r}"
        )
    return distance


def epsilon_of(softening: float | str, points: int | Tensor, dimension: int, dtype: str) -> Any:
    """The squared distance below which the potential is continued linearly.

    Args:
        softening: a distance, or "auto".
        points: number of points on the sphere, an integer or a scalar integer tensor.
        dimension: number of coordinates of a point.
        dtype: dtype of the cosines.

    Returns:
        A float, or a scalar tensor of this dtype if it depends on a number that is a tensor.
    """
    # Cosines are rounded, so smaller squared distances cannot be distinguished.
    resolution = 4 * float(np.finfo(dtype).eps)
    if softening != "auto":
        return max(float(softening) ** 2, resolution)
    if dimension == 1:
        return _LARGEST_EPSILON
    # `spread` is the squared radius of a cap whose area is that of the sphere divided by `points`.
    # `sphere` and `ball` are log(sigma_{d-1}) and log(kappa_{d-1}).
    half = dimension / 2
    sphere = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    ball = (half - 0.5) * math.log(math.pi) - math.lgamma(half + 0.5)
    if ops.is_tensor(points):
        count = at_least(ops.cast(points, dtype), 1.0)
        spread = ops.exp(2 / (dimension - 1) * (sphere - ball - ops.log(count)))
        return at_least(at_most(spread, _LARGEST_EPSILON), resolution)
    spread = math.exp(2 / (dimension - 1) * (sphere - ball - math.log(points)))
    return max(min(_LARGEST_EPSILON, spread), resolution)
