"""Energies of layers too large for all pairs: random groups, and the classes of a batch."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._arguments import check_flag, check_integer
from keras_mhe._backend import matmul, outside_torch_graphs, write_slice
from keras_mhe._random import fingerprint, seed_of
from keras_mhe._typing import NeuronAxis, Tensor
from keras_mhe.energies._blocks import off_diagonal_mask
from keras_mhe.energies._bound import largest_force
from keras_mhe.energies._energy import energy_program
from keras_mhe.energies._neurons import neuron_matrix, tangent_part, unit_neurons
from keras_mhe.energies._pair_sums import pair_sums
from keras_mhe.energies._pairs import mean_over_points, relative_to_closest
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram

# The number of classes whose cosines with the labels of a batch are in memory at a time.
_CLASSES = 4096
# The sum over classes starts with partial sums of this length: one float32 sum would lose digits.
_SUMMANDS = 64
# The label of examples to ignore in a program. All other labels that are not classes are N.
_IGNORED = -1


def check_sample(sample: int | None) -> int | None:
    """Returns the number of neurons in a random group, or None."""
    if sample is None:
        return None
    return check_integer(sample, "sample", least=2, expected="an integer of at least 2 or None")


def _sampled_value_and_tangent(
    matrix: Tensor, potential: Potential, sample: int
) -> tuple[Tensor, Tensor, Tensor]:
    *batch, dimension, n = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    count = n // sample
    order = keras.random.shuffle(ops.arange(n, dtype="int32"), seed=seed_of(fingerprint(matrix)))
    # With neurons as rows, each of them moves as one block of memory.
    drawn = ops.take(ops.swapaxes(unit, -1, -2), order[: count * sample], axis=-2)
    groups = ops.reshape(drawn, (*batch, count, sample, dimension))
    groups = ops.swapaxes(groups, -1, -2)
    is_pair = functools.partial(off_diagonal_mask, sample)
    potential = relative_to_closest(potential, groups, groups, is_pair)
    sums, gradient = pair_sums(groups, potential)
    gradient = ops.reshape(ops.swapaxes(gradient, -1, -2), (*batch, count * sample, dimension))
    # Neurons left over after grouping get no gradient in this draw.
    gradient = ops.pad(gradient, [(0, 0)] * len(batch) + [(0, n - count * sample), (0, 0)])
    gradient = ops.swapaxes(ops.take(gradient, ops.argsort(order), axis=-2), -1, -2)
    pairs = math.prod(batch) * count * sample * (sample - 1)
    value, weight = mean_over_points(sums, pairs, n, potential)
    return value, 2.0 * weight * tangent_part(unit, gradient), reciprocal


def sampled_program(matrix: Tensor, potential: Potential, sample: int) -> EnergyProgram:
    """The energy of random groups of `sample` neurons: an unbiased estimate.

    `E = mean over groups of the mean over i != j in the group`, with the softening of the whole
    layer. In half space, the constant pairs `(u_i, -u_i)` keep their weight in the full sum,
    `1/(2N - 1)`. The groups are disjoint and of equal size. They are drawn from the bits of the
    matrix, so a changed matrix gives a new draw. Up to `sample - 1` neurons are left out of a draw.
    Time and memory grow with `N * sample`. The energy of a Gaussian is the logarithm of an unbiased
    estimate, so on average it is slightly too small.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.
    """
    if sample >= matrix.shape[-1]:
        return energy_program(matrix, potential)
    return EnergyProgram(_sampled_value_and_tangent, (potential, sample))


def _class_value_and_tangent(
    matrix: Tensor, labels: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    dimension, n = matrix.shape
    unit, reciprocal = unit_neurons(matrix)
    counted, known = labels != _IGNORED, labels < n
    labels = ops.where(ops.logical_and(counted, known), labels, 0)
    own = ops.take(unit, labels, axis=-1)

    def is_pair(index: Tensor) -> Tensor:
        # A class does not meet itself, and the last panel is padded with zeros.
        pairs = ops.logical_and(labels[:, None] != index, index < n)
        return ops.logical_and(pairs, counted[:, None])

    potential = relative_to_closest(potential, own, unit, is_pair)
    count = -(-n // _CLASSES)
    width = -(-n // (_SUMMANDS * count)) * _SUMMANDS
    classes = ops.pad(unit, [(0, 0), (0, count * width - n)])

    def panel(j: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sums, gradient, own_gradient = carry
        index = j * width + ops.arange(width, dtype="int32")
        others = ops.slice(classes, (j * 0, j * width), (dimension, width))
        value, slope = potential(matmul(ops.transpose(own), others))
        pairs = is_pair(index)
        slope = ops.where(pairs, slope, 0.0)
        sums = write_slice(sums, (j * width,), ops.sum(ops.where(pairs, value, 0.0), axis=0))
        gradient = write_slice(gradient, (j * 0, j * width), matmul(own, slope))
        return sums, gradient, own_gradient + matmul(others, ops.transpose(slope))

    carry = (ops.zeros_like(classes[0]), ops.zeros_like(classes), ops.zeros_like(own))
    sums, gradient, own_gradient = ops.fori_loop(0, count, panel, carry)
    own_gradient = ops.segment_sum(ops.transpose(own_gradient), labels, num_segments=n)
    gradient = gradient[:, :n] + ops.transpose(own_gradient)

    # A compiled step cannot raise, so an invalid label makes the energy NaN.
    one = ops.cast(ops.where(ops.all(known), 1.0, math.nan), unit.dtype)
    examples = ops.sum(ops.cast(counted, "int32"))
    share = one / ops.cast(ops.maximum(examples, 1), unit.dtype)
    sums = ops.sum(ops.reshape(sums, (-1, _SUMMANDS)), axis=-1)
    value, weight = mean_over_points(sums * share, n - 1, n, potential)
    # In half space, a constant remains of a batch without examples.
    value = ops.where(examples > 0, value, 0.0)
    return value, weight * share * tangent_part(unit, gradient), reciprocal


def _check_ignore_class(ignore_class: int | None) -> int | None:
    """Returns the label of examples to ignore, or None."""
    if ignore_class is None:
        return None
    expected = "an integer of at most 32 bits or None"
    number = check_integer(ignore_class, "ignore_class", least=-(2**31), expected=expected)
    if number >= 2**31:
        raise ValueError(
            f"Invalid value for argument `ignore_class`. Expected {expected}. "
            f"Received: ignore_class={ignore_class!r}"
        )
    return number


def _check_classes(labels: np.ndarray, n: int) -> None:
    if not np.all(labels == np.floor(labels)):
        raise ValueError(
            "Argument `labels` must hold whole numbers, one class for each example. "
            f"Received: labels={labels!r}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < n:
        raise ValueError(
            f"Argument `labels` must be between 0 and {n - 1}: the kernel has {n} neurons. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )


def _numbered_array(labels: np.ndarray, n: int, ignore_class: int | None) -> Tensor:
    """The labels as int32, with `_IGNORED` for examples to ignore. Other labels are checked."""
    ignored = np.zeros(labels.shape, bool) if ignore_class is None else labels == ignore_class
    _check_classes(labels[~ignored], n)
    numbers = np.full(labels.shape, _IGNORED, "int32")
    numbers[~ignored] = labels[~ignored]
    return ops.convert_to_tensor(numbers, "int32")


def _numbered_tensor(labels: Tensor, n: int, ignore_class: int | None) -> Tensor:
    """The labels as int32, with `_IGNORED` for examples to ignore and n for invalid labels."""
    dtype = keras.backend.standardize_dtype(labels.dtype)
    numbers = ops.cast(labels, "int32")
    known = ops.logical_and(numbers >= 0, numbers < n)
    exact = ops.ones_like(known)
    if dtype in ("int64", "uint32", "uint64") or keras.backend.is_float_dtype(dtype):
        # The cast drops fractions, and wraps large integers around to valid classes.
        exact = ops.equal(ops.cast(numbers, dtype), labels)
    if dtype in ("uint32", "uint64"):
        exact = ops.logical_and(exact, numbers >= 0)
    result = ops.where(ops.logical_and(exact, known), numbers, n)
    if ignore_class is not None:
        ignored = ops.logical_and(exact, numbers == ignore_class)
        result = ops.where(ignored, _IGNORED, result)
    return result


def _class_labels(labels: Tensor, n: int, ignore_class: int | None) -> Tensor:
    """The labels as a vector of int32. Values are checked unless the labels are a tensor."""
    concrete = not ops.is_tensor(labels)
    labels = np.asarray(labels) if concrete else labels
    shape = tuple(labels.shape)
    numeric = not concrete or labels.dtype.kind in "iuf"
    dtype = keras.backend.standardize_dtype(labels.dtype) if numeric else str(labels.dtype)
    # Keras sometimes passes labels as floats, for example when it builds a distributed model.
    real = numeric and keras.backend.is_float_dtype(dtype) and shape[1:] in ((), (1,))
    if not real and not (numeric and keras.backend.is_int_dtype(dtype)):
        raise TypeError(
            "Argument `labels` must hold one integer for each example, its class. One-hot vectors "
            f"are not accepted. Received: labels.dtype={dtype}, labels.shape={shape}"
        )
    if 0 in shape:
        raise ValueError(
            f"Argument `labels` must hold at least one label. Received: labels.shape={shape}"
        )
    numbered = _numbered_array if concrete else _numbered_tensor
    return ops.reshape(numbered(labels, n, ignore_class), (-1,))


@outside_torch_graphs
def class_energy(
    kernel: Tensor,
    labels: Tensor,
    s: float | None = None,
    *,
    factor: Any = 1.0,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    neuron_axis: NeuronAxis = None,
    softening: float | str = "auto",
    bounded: bool = True,
    ignore_class: int | None = None,
) -> Tensor:
    """Hyperspherical energy of the classes of a batch against all classes of an output layer.

    `loss = factor * E`, where `E = 1/(m (N - 1)) sum over i <= m and j != y_i of
    |u_{y_i} - u_j|^(-s)`. Here `y_i` are the labels of the batch and `u_j` are the neurons (class
    vectors) on the unit sphere. This is the mini-batch form of `hyperspherical_energy`: on average
    they are equal if each class is drawn equally often. In half space, the mean for each label is
    over the `2N - 1` points other than `u_{y_i}`.

    The gradient moves the classes of the batch and all other classes away from each other. A class
    that occurs twice counts twice. Under `tf.distribute`, divide the energy by the number of
    replicas: Keras does this only for its own losses.

    Value and gradient take three products of `2 m N d` operations, as many as the logits of the
    layer and their gradients. Memory is proportional to the kernel.

    Args:
        kernel: floating-point tensor or variable of an output layer, with at least two axes.
        labels: the classes of the batch, integers from 0 to `N - 1` in any shape. Labels of shape
            `(m,)` or `(m, 1)` may also be whole numbers of a floating-point dtype. In a compiled
            step, a label that is not a class makes the energy NaN.
        s: power of the potential, zero or larger; 0 means the logarithm. `None` means 2.
        factor: weight in the loss, a number or a scalar tensor.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`. With `"gaussian"`, E is the logarithm
            of the mean of `exp(-t |u_{y_i} - u_j|^2)`. On average, E is then slightly smaller than
            the energy of all pairs, because only the mean under the logarithm is the same.
        t: rate of the Gaussian, as in `hyperspherical_energy`.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        neuron_axis: the axis or axes of the kernel that index classes. `None` means the last axis,
            as in Dense. Use 0 for a kernel of shape `(classes, features)`.
        softening: distance below which the potential is continued linearly, as in
            `hyperspherical_energy`. `"auto"` depends on the number of all classes, N.
        bounded: whether to bound the gradient of `factor * E`, as in `MHE`. Pass the factor as an
            argument: a bounded gradient that is multiplied later is not bounded. The bound depends
            on the number of all labels in the batch, ignored ones included.
        ignore_class: label of examples to ignore, as in
            `keras.losses.SparseCategoricalCrossentropy`. They count neither in the sum nor in m.
            The energy is 0 if all examples are ignored. `None` means that all examples count.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: if the labels are one-hot, the kernel is not floating point, or an argument has
            the wrong type.
        ValueError: if an argument is out of range, the kernel does not have an axis of
            `neuron_axis`, or labels that are not a tensor are out of range.
        NotImplementedError: if second derivatives are requested.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import class_energy
        >>> @keras.saving.register_keras_serializable()
        ... class Classifier(keras.Model):
        ...     def __init__(self, classes, factor=10.0, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.classes, self.factor = classes, factor
        ...         self.head = keras.layers.Dense(classes, use_bias=False)
        ...
        ...     def call(self, features):
        ...         return self.head(features)
        ...
        ...     def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        ...         loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        ...         return loss + class_energy(self.head.kernel, y, factor=self.factor)
        ...
        ...     def get_config(self):
        ...         return {**super().get_config(), "classes": self.classes, "factor": self.factor}
    """
    spec = PotentialSpec(s, distance, half_space, softening, t)
    matrix = neuron_matrix(kernel, neuron_axis)
    labels = _class_labels(labels, matrix.shape[-1], _check_ignore_class(ignore_class))
    program = EnergyProgram(_class_value_and_tangent, (spec.of_neurons(matrix),), (labels,))
    force = None
    if check_flag(bounded, "bounded"):
        dimension, n = matrix.shape
        # The batch may be of unknown size.
        moving = n if labels.shape[0] is None else min(n, labels.shape[0])
        force = largest_force(n, dimension, spec.half_space, moving)
    return program.loss(matrix, factor, force)
