"""Fixed class vectors of low energy."""

import numpy as np

from keras_mhe._arguments import check_integer
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.initializers._directions import low_energy_directions


def prototypes(
    classes: int, dim: int, *, s: float = 2.0, steps: int | None = None, seed: int = 0
) -> np.ndarray:
    """Class vectors of length one with low hyperspherical energy in full space.

    They (nearly) minimize `mean over i != j of |u_i - u_j|^(-s)`. For `classes <= dim + 1` they are
    the vertices of a regular simplex, and all angles are `arccos(-1 / (classes - 1))`. For
    `classes <= 2 * dim` the smallest angle is 90 degrees, which is the largest possible. In two
    dimensions they are a regular polygon. In all other cases, gradient steps lower the energy.

    The array is the kernel of a Dense layer without bias, whose weights can be frozen. The network
    then learns features only.

    Args:
        classes: number of classes, at least 1.
        dim: number of coordinates of the features, at least 1.
        s: power of the potential, zero or larger; 0 means the logarithm.
        steps: number of gradient steps, as in `MinimumEnergy`.
        seed: integer, zero or larger, which selects a random rotation and order of the classes.

    Returns:
        A float32 NumPy array of shape `(dim, classes)`, with a class vector in each column. It is
        also what `MinimumEnergy(scale=1.0, mode="fan_in", seed=seed)` returns for this shape.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS, for the
    energy. Mettes, van der Pol and Snoek (2019), "Hyperspherical Prototype Networks", NeurIPS,
    for fixed class vectors.

    Examples:
        >>> import keras, numpy as np
        >>> from keras_mhe.initializers import prototypes
        >>> vectors = prototypes(4, 3)
        >>> cosines = vectors.T @ vectors
        >>> bool(np.allclose(cosines[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-6))
        True
        >>> head = keras.layers.Dense(
        ...     4,
        ...     use_bias=False,
        ...     trainable=False,
        ...     kernel_initializer=keras.initializers.Constant(vectors),
        ... )
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(3), head])
        >>> len(model.trainable_variables)  # kernel and bias of the features
        2
    """
    classes = check_integer(classes, "classes", 1, "a positive number of classes")
    dim = check_integer(dim, "dim", 1, "a positive number of coordinates")
    if steps is not None:
        steps = check_integer(steps, "steps", 0, "an integer, zero or larger, or None")
    seed = check_integer(seed, "seed", 0, "an integer, zero or larger")
    rng = np.random.default_rng(seed)
    return low_energy_directions(classes, dim, PotentialSpec(s), steps, rng).astype("float32")
