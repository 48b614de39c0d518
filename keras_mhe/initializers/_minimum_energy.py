"""The initializer of kernels whose neurons have low energy."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mhe._arguments import check_integer
from keras_mhe._typing import NeuronAxis, Shape, Tensor
from keras_mhe.energies._neurons import check_axes, matrix_sizes, neuron_array
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.initializers._directions import low_energy_directions


def _fans(shape: Shape, neuron_axis: NeuronAxis, neurons: int) -> dict[str, float]:
    """The numbers of inputs and outputs of a kernel by mode, as in `VarianceScaling`."""
    if isinstance(neuron_axis, Sequence) and len(neuron_axis) > 1:
        fan_in, fan_out = math.prod(shape) // neurons, neurons
    else:
        field = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * field, shape[-1] * field
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}


@keras.saving.register_keras_serializable(package="keras_mhe")
class MinimumEnergy(keras.initializers.Initializer):
    """Initial kernels whose neurons have (nearly) minimal hyperspherical energy.

    `w_i = sqrt(d * scale / n) * u_i`, where the directions `u_i` (nearly) minimize
    `mean over i != j of |u_i - u_j|^(-s)`. Here d is the number of coordinates of a neuron, and n
    depends on `mode`. All neurons have the same norm. The mean square of the entries is
    `scale / n`, as in `keras.initializers.VarianceScaling` with the same `scale` and `mode`: the
    defaults give that of `"glorot_uniform"`, the default of most Keras layers, and `scale=2.0,
    mode="fan_in"` gives that of `"he_normal"`. If `neuron_axis` names several axes, n counts the
    coordinates (`"fan_in"`) or the neurons (`"fan_out"`), as in EinsumDense.

    Where the minimum is known, the directions are that set in a random rotation and order: a
    regular simplex for `N <= d + 1` neurons, orthogonal simplexes for `N <= 2d` and a regular
    polygon for `d = 2`. In half space, they are orthonormal for `N <= d`. Otherwise a random set is
    made a balanced tight frame, and then gradient steps lower its energy. All of this runs in
    NumPy in float64, so a seed gives the same kernel on every backend, up to rounding.

    An initializer is called with the shape of the kernel, `(..., N)` with one neuron in each
    column, and its dtype. It returns a tensor of that shape.

    Args:
        scale: positive number; see above.
        mode: `"fan_in"`, `"fan_out"` or `"fan_avg"`, as in `keras.initializers.VarianceScaling`.
        half_space: whether to include the mirror images `-u_i` in the energy, as in `MHE`.
        s: power of the potential, zero or larger; 0 means the logarithm. It has no effect on
            simplexes, polygons and orthonormal sets.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis. Use -2 for transposed convolutions and 0 for Embedding.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. Each group gets its own
            set of directions. `None` means 1.
        steps: number of gradient steps, zero or larger. `None` means as many as take a few
            seconds, at most 100. For many neurons this is zero, for example for more than 2,946
            neurons of 512 coordinates.
        seed: as in all initializers of Keras: an integer, a `keras.random.SeedGenerator` or None.
            With an integer or None, each call with the same shape returns the same kernel. None
            draws the integer when the initializer is created.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. When called,
            also if the kernel has fewer than two axes or does not have an axis of `neuron_axis`, if
            `groups` does not divide the number of neurons, or if the dtype is not floating point.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS, for the
    energy. Glorot and Bengio (2010) and He et al. (2015) for the norms.

    Examples:
        >>> import keras
        >>> from keras_mhe import energy_report
        >>> from keras_mhe.initializers import MinimumEnergy
        >>> layer = keras.layers.Dense(32, kernel_initializer=MinimumEnergy(half_space=True))
        >>> model = keras.Sequential([keras.Input((64,)), layer])
        >>> row = energy_report(model, half_space=True).rows[0]
        >>> abs(round(row.position, 4)), round(row.nearest_angle_min, 3)
        (0.0, 90.0)
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_avg",
        *,
        half_space: bool = False,
        s: float = 2.0,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        steps: int | None = None,
        seed: Any = None,
    ) -> None:
        # Checks `scale` and `mode`, and treats seeds as Keras does. It is no base class, because
        # EinsumDense creates initializers of its class anew, with other arguments.
        self.scaling = keras.initializers.VarianceScaling(scale, mode, seed=seed)
        self.spec = PotentialSpec(s, half_space=half_space)
        axes, count = check_axes(neuron_axis, groups)
        # A list, as in JSON, and a copy: the caller may change the original.
        self.neuron_axis = list(axes) if isinstance(neuron_axis, Sequence) else neuron_axis
        self.groups = None if groups is None else count
        if steps is not None:
            steps = check_integer(steps, "steps", 0, "an integer, zero or larger, or None")
        self.steps = steps

    def _generator(self) -> np.random.Generator:
        seed = self.scaling.seed
        if isinstance(seed, keras.random.SeedGenerator):
            return np.random.default_rng(ops.convert_to_numpy(seed.next()).astype("uint32"))
        # NumPy has no negative seeds, but Keras has.
        return np.random.default_rng(seed % 2**64)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        shape, dtype = tuple(shape), keras.backend.standardize_dtype(dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(f"A kernel must be floating point. Received: dtype={dtype}")
        count, d, n = matrix_sizes(shape, self.neuron_axis, self.groups)
        rng = self._generator()
        unit = [low_energy_directions(n, d, self.spec, self.steps, rng) for _ in range(count)]
        # The place in the kernel of each entry of the matrices of neurons.
        places = np.arange(count * d * n).reshape(shape)
        places = neuron_array(places, self.neuron_axis, self.groups).astype("int64")
        fan = _fans(shape, self.neuron_axis, count * n)[self.scaling.mode]
        kernel = np.empty(count * d * n)
        kernel[places] = math.sqrt(d * self.scaling.scale / fan) * np.stack(unit)
        wide = "float64" if dtype == "float64" else "float32"
        return ops.cast(ops.convert_to_tensor(kernel.reshape(shape), wide), dtype)

    def get_config(self) -> dict[str, Any]:
        config = self.scaling.get_config()
        return {name: config[name] for name in ("scale", "mode", "seed")} | {
            "half_space": self.spec.half_space,
            "s": self.spec.s,
            "neuron_axis": self.neuron_axis,
            "groups": self.groups,
            "steps": self.steps,
        }
