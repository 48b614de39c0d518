"""The energy of a batch of points, which may have any size."""

from typing import Any

import keras
from keras import ops

from keras_mhe._backend import has_compiler, outside_torch_graphs
from keras_mhe._typing import Tensor
from keras_mhe.energies._pairs import value_and_tangent
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram

# The powers of two above which the sizes of padded batches are multiples of 32, 64, ...
_POWERS = [2**k for k in range(7, 30)]


def _padding(size: Any) -> Any:
    """The number of points to add to a batch, so that one program serves batches of many sizes.

    From 64 on, there are four sizes between a power of two and the next one, so a batch grows by
    at most a quarter.
    """
    if isinstance(size, int):
        step = 16 << sum(size > power for power in _POWERS)
        return -(-max(size, 1) // step) * step - size
    doublings = ops.sum(ops.cast(size > ops.convert_to_tensor(_POWERS, "int32"), "int32"))
    step = ops.left_shift(ops.convert_to_tensor(16, "int32"), doublings)
    return -(-ops.maximum(size, 1) // step) * step - size


def _value_and_tangent(
    points: Tensor, n: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    return value_and_tangent(points, potential, n)


def _first_points(rows: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the points that count to the front. Returns all points, and how many of them count."""
    order = ops.argsort(ops.where(counted, 0, 1))
    return ops.take(rows, order, axis=0), ops.sum(ops.cast(counted, "int32"))


def _class_means(rows: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the points of each class, and which of these means exist.

    The points that do not count are zero.
    """
    order = ops.argsort(labels)
    rows, labels = ops.take(rows, order, axis=0), ops.take(labels, order)
    counted = ops.cast(ops.take(counted, order), rows.dtype)
    first = ops.concatenate([ops.ones_like(labels[:1], "bool"), labels[1:] != labels[:-1]])
    number, size = ops.cumsum(ops.cast(first, "int32")) - 1, ops.shape(rows)[0]
    sizes = ops.segment_sum(counted, number, num_segments=size)
    sums = ops.segment_sum(rows, number, num_segments=size)
    return sums / ops.maximum(sizes, 1.0)[:, None], sizes > 0


def _one_for_each_point(name: str, values: Any, features: Tensor) -> Tensor:
    """Labels or a mask as a vector."""
    values = ops.convert_to_tensor(values)
    expected = tuple(features.shape[:-1])
    if len(values.shape) == len(expected) + 1 and values.shape[-1] == 1:
        values = ops.squeeze(values, axis=-1)
    shape = tuple(values.shape)
    known = zip(shape, expected, strict=False)
    if len(shape) != len(expected) or any(a != b for a, b in known if None not in (a, b)):
        raise ValueError(
            f"Argument `{name}` must hold one value for each point, with the shape {expected}. "
            f"Received: {name}.shape={shape}"
        )
    return ops.reshape(values, (-1,))


def _points(features: Tensor) -> Tensor:
    """Features as rows, in float32 or wider."""
    features = ops.convert_to_tensor(features)
    dtype = keras.backend.standardize_dtype(features.dtype)
    shape = tuple(features.shape)
    if not keras.backend.is_float_dtype(dtype):
        raise TypeError(
            f"Argument `features` must be floating point. Received: features.dtype={dtype}"
        )
    if len(shape) < 2 or not shape[-1]:
        raise ValueError(
            "Argument `features` must have the shape `(batch, ..., coordinates)` with a known "
            f"number of coordinates. Received: features.shape={shape}"
        )
    rows = ops.reshape(features, (-1, shape[-1]))
    return rows if dtype == "float64" else ops.cast(rows, "float32")


def counted_points(features: Tensor, labels: Any, mask: Any) -> tuple[Tensor, Any]:
    """The points of a batch as columns, followed by zeros, and the number of points.

    Args:
        features: as in `batch_energy`.
        labels: as in `batch_energy`.
        mask: as in `batch_energy`.

    Returns:
        A matrix of shape `(d, columns)`, and an integer or a scalar int32 tensor.
    """
    rows = _points(features)
    # Keras gives an integer if the size is known.
    size = n = ops.shape(rows)[0]
    if mask is not None or labels is not None:
        counted = ops.ones((size,), "bool")
        if mask is not None:
            counted = ops.cast(_one_for_each_point("mask", mask, features), "bool")
            # Other points may have any entries, also NaN.
            rows = ops.where(counted[:, None], rows, ops.zeros_like(rows))
        if labels is not None:
            labels = _one_for_each_point("labels", labels, features)
            rows, counted = _class_means(rows, labels, counted)
        rows, n = _first_points(rows, counted)
    # Without a compiler, only an empty batch is padded.
    padding = _padding(size) if has_compiler() else int(size == 0)
    rows = ops.pad(rows, [(0, padding), (0, 0)])
    return ops.transpose(rows), n


def batch_program(points: Tensor, n: Any, spec: PotentialSpec) -> EnergyProgram:
    """The energy of the first n columns of a matrix; the others are zero."""
    dtype = keras.backend.standardize_dtype(points.dtype)
    # A batch without points has the potential of one point.
    count = max(n, 1) if isinstance(n, int) else n
    potential = spec.potential(count, points.shape[0], dtype)
    if potential.may_underflow:
        raise ValueError(
            "Argument `t` must be at most 15 for the points of a batch: the mean of smaller values "
            f"could underflow. Received: t={spec.t}"
        )
    return EnergyProgram(_value_and_tangent, (potential,), (ops.convert_to_tensor(n, "int32"),))


@outside_torch_graphs
def batch_energy(
    features: Tensor,
    labels: Tensor | None = None,
    s: float | None = None,
    *,
    mask: Tensor | None = None,
    distance: str = "euclidean",
    half_space: bool = False,
    softening: float | str = "auto",
    t: float | None = None,
) -> Tensor:
    """Hyperspherical energy of the points of a batch, such as embeddings, on the unit sphere.

    `E = mean over i != j of |u_i - u_j|^(-s)`, where `u_i = x_i / |x_i|` and the `x_i` are the rows
    of `features`. With labels, the points are the means of the classes instead: `x_k` is the mean
    of the rows with label k. `hyperspherical_energy` documents `s = 0`, angles and half space.
    Minimizing this energy spreads embeddings, as the losses KoLeo and uniformity do, but it stays
    finite if points are equal.

    Fewer than two points have the energy 0 (in half space, a single point has the energy of its
    own pair). A point of norm zero has cosine 0 with all others and gradient 0.

    Batches of many sizes share compiled programs, because a batch is padded to the next of few
    sizes. Value and gradient together take 1.3 to 2 times the time of the matrix product of
    the features with themselves. Memory is proportional to the features.

    In a training step on several devices of `tf.distribute`, or several processes of PyTorch, this
    is the energy of the part of the batch on each device. On JAX with `keras.distribution`, it is
    the energy of the whole batch.

    Args:
        features: floating-point tensor of shape `(batch, ..., d)` with one point in each row. The
            size of the batch may be unknown. The energy is computed in float32, or in float64 for
            float64 features.
        labels: the class of each point, numbers of shape `features.shape[:-1]`. Points of equal
            labels form a class. One-hot vectors are not accepted. None means no classes.
        s: power of the potential, zero or larger; 0 means the logarithm. None means 2.
        mask: which points count, booleans of shape `features.shape[:-1]`. None means all.
        distance: `"euclidean"`, `"angular"`, or `"gaussian"` for the uniformity loss of Wang and
            Isola, `log mean exp(-t |u_i - u_j|^2)`, which has no `s`.
        half_space: whether to include the mirror images `-u_i` of the points.
        softening: distance below which the potential is continued linearly, as in
            `hyperspherical_energy`. `"auto"` depends on the number of points (of classes, with
            labels) that count.
        t: rate of the Gaussian, at most 15. None means 2. Other distances have none.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: if the features are not floating point, or an argument has the wrong type.
        ValueError: if an argument is out of range or has the wrong shape.
        NotImplementedError: if second derivatives are requested.

    Source: the energy of Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy",
    NeurIPS, for the points of a batch, as in Wang and Isola (2020), "Understanding Contrastive
    Representation Learning through Alignment and Uniformity on the Hypersphere", ICML.

    Examples:
        >>> import numpy as np
        >>> from keras_mhe import batch_energy
        >>> square = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -4.0]], "float32")
        >>> round(float(batch_energy(square)), 4)  # (1/2 + 1/2 + 1/4) / 3
        0.4167
        >>> float(batch_energy(square, labels=[0, 1, 0, 1]))  # means (-1, 0) and (0, -1)
        0.5
    """
    spec = PotentialSpec(s, distance, half_space, softening, t)
    points, n = counted_points(features, labels, mask)
    return batch_program(points, n, spec).energy(points)
