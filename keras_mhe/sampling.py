"""Energies of layers too large for all their pairs: random groups, and the classes of a batch."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._backend import compiled
from keras_mhe.axes import check_integer, neuron_matrix
from keras_mhe.energy import energy_of, with_gradient
from keras_mhe.pairs import gradient_from_pull, mean_over_points, pair_sums, unit_neurons
from keras_mhe.potentials import Potential, potential_of
from keras_mhe.seeds import fingerprint, seed_of

# Classes whose cosines with all labels of a batch are held at a time.
_CLASSES = 4096
# Sums over so many classes come first: one float32 sum over all of them would lose digits.
_SUMMANDS = 64


def check_sample(sample: int | None) -> int | None:
    """Returns the number of neurons in a random group as an integer of Python's, or None."""
    if sample is None:
        return None
    return check_integer(sample, "sample", least=2, what="an integer of at least 2 or None")


def _sampled_value_and_gradient(matrix: Any, potential: Potential, sample: int) -> tuple[Any, Any]:
    *batch, dimension, n = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    count = n // sample
    order = keras.random.shuffle(ops.arange(n, dtype="int32"), seed=seed_of(fingerprint(matrix)))
    # Neurons as rows: each is moved as a whole.
    drawn = ops.take(ops.swapaxes(unit, -1, -2), order[: count * sample], axis=-2)
    groups = ops.reshape(drawn, (*batch, count, sample, dimension))
    sums, pull = pair_sums(ops.swapaxes(groups, -1, -2), potential)
    pull = ops.reshape(ops.swapaxes(pull, -1, -2), (*batch, count * sample, dimension))
    # Those whom no group has room for rest this time.
    pull = ops.pad(pull, [(0, 0)] * len(batch) + [(0, n - count * sample), (0, 0)])
    pull = ops.swapaxes(ops.take(pull, ops.argsort(order), axis=-2), -1, -2)
    pairs = math.prod(batch) * count * sample * (sample - 1)
    value, weight = mean_over_points(sums, pairs, n, potential)
    return value, gradient_from_pull(unit, reciprocal, pull, 2.0 * weight)


@functools.lru_cache(maxsize=256)
def _compiled_sample(shape: tuple[int, ...], dtype: str, potential: Potential, sample: int) -> Any:
    return compiled(
        lambda matrix: _sampled_value_and_gradient(matrix, potential, sample), (shape, dtype)
    )


def sampled_energy(matrix: Any, potential: Potential, sample: int) -> Any:
    """The energy of random groups of `sample` neurons of a matrix: an unbiased estimate.

    `E = mean over groups of the mean over i != j within`, softened as the whole layer is. In half
    space the constant pairs `(u_i, -u_i)` keep their weight `1/(2N - 1)` of the full sum. The
    groups are equal, disjoint and drawn from the bits of the matrix: anew whenever it changes. Up
    to `sample - 1` neurons are left out of a draw. Time and memory grow with `N * sample`.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.
    """
    if sample >= matrix.shape[-1]:
        return energy_of(matrix, potential)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_sample(tuple(matrix.shape), dtype, potential, sample)
    return with_gradient(program, matrix, twice=False)


def _class_value_and_gradient(matrix: Any, labels: Any, potential: Potential) -> tuple[Any, Any]:
    dimension, n = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    known = ops.logical_and(labels >= 0, labels < n)
    labels = ops.where(known, labels, 0)
    own = ops.take(unit, labels, axis=-1)

    count = -(-n // _CLASSES)
    width = -(-n // (_SUMMANDS * count)) * _SUMMANDS
    classes = ops.pad(unit, [(0, 0), (0, count * width - n)])

    def panel(j: Any, carry: Any) -> Any:
        sums, pull, own_pull = carry
        index = j * width + ops.arange(width, dtype="int32")
        others = ops.slice(classes, (j * 0, j * width), (dimension, width))
        value, slope = potential(ops.matmul(ops.transpose(own), others))
        # Neither a class with itself nor the zeros that fill the last panel up.
        true = ops.logical_and(labels[:, None] != index, index < n)
        slope = ops.where(true, slope, 0.0)
        sums = ops.slice_update(sums, (j * width,), ops.sum(ops.where(true, value, 0.0), axis=0))
        pull = ops.slice_update(pull, (j * 0, j * width), ops.matmul(own, slope))
        return sums, pull, own_pull + ops.matmul(others, ops.transpose(slope))

    carry = (ops.zeros_like(classes[0]), ops.zeros_like(classes), ops.zeros_like(own))
    sums, pull, own_pull = ops.fori_loop(0, count, panel, carry)
    own_pull = ops.segment_sum(ops.transpose(own_pull), labels, num_segments=n)
    pull = pull[:, :n] + ops.transpose(own_pull)

    # A label that is no class must show: a compiled step cannot raise.
    one = ops.cast(ops.where(ops.all(known), 1.0, math.nan), unit.dtype)
    share = one / ops.cast(ops.maximum(ops.size(labels), 1), unit.dtype)
    sums = ops.sum(ops.reshape(sums, (-1, _SUMMANDS)), axis=-1)
    value, weight = mean_over_points(sums * share, n - 1, n, potential)
    return value, gradient_from_pull(unit, reciprocal, pull, weight * share)


@functools.lru_cache(maxsize=256)
def _compiled_classes(
    shape: tuple[int, ...], dtype: str, labels: int | None, potential: Potential
) -> Any:
    return compiled(
        lambda matrix, labels: _class_value_and_gradient(matrix, labels, potential),
        (shape, dtype),
        ((labels,), "int32"),
    )


def _check_classes(labels: np.ndarray, n: int) -> None:
    if not np.all(labels == np.floor(labels)):
        raise ValueError(
            "Argument `labels` must hold whole numbers, the class of each example. "
            f"Received: labels={labels!r}"
        )
    if not 0 <= labels.min() <= labels.max() < n:
        raise ValueError(
            f"Argument `labels` must lie between 0 and {n - 1}, as the kernel has {n} neurons. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )


def _class_labels(labels: Any, n: int) -> Any:
    """The labels as a vector of integers, checked as far as their values are at hand."""
    at_hand = not keras.ops.is_tensor(labels)
    labels = np.asarray(labels) if at_hand else labels
    shape = tuple(labels.shape)
    numeric = not at_hand or labels.dtype.kind in "iuf"
    dtype = keras.backend.standardize_dtype(labels.dtype) if numeric else str(labels.dtype)
    # Keras hands labels over as floats now and then (it does when it builds a distributed model).
    real = numeric and keras.backend.is_float_dtype(dtype) and shape[1:] in ((), (1,))
    if not real and not (numeric and keras.backend.is_int_dtype(dtype)):
        raise TypeError(
            "Argument `labels` must hold the class of each example, an integer, not one-hot "
            f"vectors. Received: labels.dtype={dtype}, labels.shape={shape}"
        )
    if 0 in shape:
        raise ValueError(
            f"Argument `labels` must hold at least one label. Received: labels.shape={shape}"
        )
    if at_hand:
        _check_classes(labels, n)
        labels = ops.convert_to_tensor(labels.astype("int32"), "int32")
    elif real:
        labels = ops.where(ops.equal(labels, ops.floor(labels)), labels, n)
    elif dtype in ("int64", "uint32", "uint64"):
        # Told from classes before the narrower integers wrap them round.
        labels = ops.where(ops.logical_and(labels >= 0, labels < n), labels, n)
    return ops.reshape(ops.cast(labels, "int32"), (-1,))


def class_energy(
    kernel: Any,
    labels: Any,
    s: float = 2.0,
    *,
    distance: str = "euclidean",
    half_space: bool = False,
    neuron_axis: int | Sequence[int] | None = None,
    softening: float | str = "auto",
) -> Any:
    """Hyperspherical energy of the classes of a batch against all classes of an output layer.

    `E = 1/(m (N - 1)) sum over i <= m and j != y_i of |u_{y_i} - u_j|^(-s)`, `y` the labels of the
    batch, `u` the neurons (class vectors) on the unit sphere: the mini-batch form of
    `hyperspherical_energy`, and equal to it on average where each class is drawn equally often.
    In half space the mean is over the `2N - 1` points that are not `u_{y_i}`, as there.

    The gradient moves the classes of the batch away from all others, and all others away from
    these; a class that occurs twice weighs twice. Under `tf.distribute` divide the energy by the
    number of replicas: Keras does so with its own losses only.

    Value and gradient take three products of `2 m N d` operations, as many as the logits of the
    layer and their gradients do, in memory proportional to the kernel.

    Args:
        kernel: floating-point tensor or variable of an output layer, with at least two axes.
        labels: integers from 0 to `N - 1`, any shape: the classes of the batch. Whole numbers of
            a floating dtype will do in the shape `(m,)` or `(m, 1)`. A label that is no class (as
            -1 for examples to ignore) makes the energy NaN in a compiled step.
        s: power of the potential, zero or more; 0 is the logarithm.
        distance: `"euclidean"` or `"angular"`.
        half_space: also count the mirror image of each neuron.
        neuron_axis: the axis or axes of the kernel that index classes; `None` is the last axis,
            as in Dense. 0 for a kernel of shape `(classes, features)`.
        softening: as in `hyperspherical_energy`, for N neurons.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: for one-hot labels, an integer kernel or an argument of the wrong type.
        ValueError: for labels out of range, where they are no tensor yet, an argument out of
            range or a kernel without the axes named.
        NotImplementedError: for second derivatives.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import class_energy
        >>> class Classifier(keras.Model):
        ...     def __init__(self, classes, factor=10.0):
        ...         super().__init__()
        ...         self.head = keras.layers.Dense(classes, use_bias=False)
        ...         self.factor = factor
        ...
        ...     def call(self, features):
        ...         return self.head(features)
        ...
        ...     def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        ...         loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        ...         return loss + self.factor * class_energy(self.head.kernel, y)
    """
    matrix = neuron_matrix(kernel, neuron_axis)
    labels = _class_labels(labels, matrix.shape[-1])
    potential = potential_of(matrix, s, distance, half_space, softening)
    dtype = keras.backend.standardize_dtype(matrix.dtype)
    program = _compiled_classes(tuple(matrix.shape), dtype, labels.shape[0], potential)
    return with_gradient(program, matrix, labels, twice=False)
