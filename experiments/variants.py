"""Regularizers of hidden kernels and of class vectors, with the papers' factors."""

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any

import keras

from keras_mhe import MGD, MHC, MHE, MHP, MHS, RMHP, CoMHE, HalfSpaceMHE, RandomProjection


class Orthogonal(keras.Regularizer):
    """Keras's `OrthogonalRegularizer`, which accepts matrices only, for kernels of any rank."""

    def __init__(self, factor: float = 0.01) -> None:
        self.matrix_regularizer = keras.regularizers.OrthogonalRegularizer(factor, mode="columns")

    def __call__(self, kernel: Any) -> Any:
        return self.matrix_regularizer(keras.ops.reshape(kernel, (-1, kernel.shape[-1])))


class SRIP(keras.Regularizer):
    """The largest singular value of `WᵀW - I`, from two steps of the power method.

    Source: Bansal et al., Can We Gain More from Orthogonality Regularizations in Training Deep
    CNNs?, NeurIPS 2018. The power method starts at the same random vector in every step.
    """

    def __init__(self, factor: float = 0.1) -> None:
        self.factor = factor

    def __call__(self, kernel: Any) -> Any:
        matrix = keras.ops.reshape(kernel, (-1, kernel.shape[-1]))
        gram = keras.ops.matmul(keras.ops.transpose(matrix), matrix)
        defect = gram - keras.ops.eye(matrix.shape[-1], dtype=matrix.dtype)
        vector = keras.random.normal((matrix.shape[-1], 1), dtype=matrix.dtype, seed=0)
        for _ in range(2):
            vector = keras.ops.normalize(keras.ops.matmul(defect, vector), axis=0)
        return self.factor * keras.ops.norm(keras.ops.matmul(defect, vector))


def _mhe(half_space: bool, distance: str, s: int) -> tuple[Any, Any]:
    # The papers' programs use -log of squared distances, and factor 0.1 for angles divided by pi.
    factor = {"euclidean": (2.0, 1.0, 1.0), "angular": (1.0, 0.1 * pi, 0.1 * pi**2)}[distance][s]
    hidden = MHE(factor, s, distance=distance, half_space=half_space, bounded=False)
    return hidden, MHE(10 * factor, s, distance=distance, bounded=False)


def _comhe(projection: Any) -> tuple[Any, Any]:
    return CoMHE(1.0, projection=projection, bounded=False), MHE(10.0, bounded=False)


def _pair(form: Any, hidden: float, output: float) -> tuple[Any, Any]:
    return form(hidden, half_space=True, bounded=False), form(output, bounded=False)


def _position(factor: float) -> tuple[Any, Any]:
    return HalfSpaceMHE(factor, scale="position"), MHE(factor, scale="position")


def _hidden_only(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return pair[0], None


def _classes_only(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    return None, pair[1]


# Regularizers of hidden kernels and of the last one, with the papers' factors and exact gradients.
# Those in units of position have bounded gradients.
VARIANTS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "baseline": lambda: (None, None),
    "orthogonal": lambda: (Orthogonal(), Orthogonal()),
    "SRIP": lambda: (SRIP(), SRIP()),
    **{f"MHE s={s}": partial(_mhe, False, "euclidean", s) for s in (0, 1, 2)},
    **{f"half-space MHE s={s}": partial(_mhe, True, "euclidean", s) for s in (0, 1, 2)},
    **{f"angular MHE s={s}": partial(_mhe, False, "angular", s) for s in (0, 1, 2)},
    **{f"angular half-space MHE s={s}": partial(_mhe, True, "angular", s) for s in (0, 1, 2)},
    "RP-CoMHE": partial(_comhe, "random"),
    "RP-CoMHE, signs": lambda: _comhe(RandomProjection(distribution="sign")),
    "AP-CoMHE": partial(_comhe, "angle"),
    "adversarial CoMHE": partial(_comhe, "adversarial"),
    "MHS": partial(_pair, MHS, 0.2, 1.0),
    "MHP": partial(_pair, MHP, 1.0, 10.0),
    "RMHP": lambda: (RMHP(0.01, bounded=False), RMHP(0.1, bounded=False)),
    "MHC": partial(_pair, MHC, 0.01, 0.1),
    "MGD": partial(_pair, MGD, 0.01, 0.1),
    "position 0.1": partial(_position, 0.1),
    "half-space MHE s=2 (hidden)": lambda: _hidden_only(_mhe(True, "euclidean", 2)),
    "half-space MHE s=2 (classes)": lambda: _classes_only(_mhe(True, "euclidean", 2)),
    "position 0.1 (hidden)": lambda: _hidden_only(_position(0.1)),
    "position 1 (classes)": lambda: _classes_only(_position(1.0)),
}
