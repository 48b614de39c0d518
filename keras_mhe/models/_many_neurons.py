"""Kernels with so many neurons that all pairs take longer than most training steps."""

import copy
import math
from typing import Any, NamedTuple

from keras_mhe.kernels._layer import ATTENTION, Kernel, own_kernels, parts_of
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.kernels._skip_reasons import misfit
from keras_mhe.regularizers._comhe import CoMHE
from keras_mhe.regularizers._gram import MGD
from keras_mhe.regularizers._mhe import MHE
from keras_mhe.regularizers._separation import MHS

# With 4,096 to 20,000 neurons of 32 to 512 coordinates, all pairs take 0.03 to 1.8 s, and random
# groups of 1,024 take 0.02 to 0.5 s (two cores of an AMD EPYC, TensorFlow).
MANY_NEURONS = 4096
# The size of random groups in advice.
SAMPLE = 1024
# Energies of all pairs. Others compare each neuron with a pole or with its nearest neighbor only.
_ALL_PAIRS = (MHE, CoMHE, MHS, MGD)


class Sampling(NamedTuple):
    """Random groups of neurons: arguments of `MHE`."""

    sample: int
    sample_groups: int | None

    def __str__(self) -> str:
        if self.sample_groups is None:
            return f"random groups of {self.sample} neurons"
        one = self.sample_groups == 1
        number = "one random group" if one else f"{self.sample_groups} random groups"
        return f"{number} of {self.sample} neurons"


# Of the default energies of a kernel with many neurons whose shape is not known yet.
UNBUILT = Sampling(256, 1)


def expected_neurons(kernel: Kernel) -> int:
    """The number of neurons of a kernel in a group, also before it is built; 0 if unknown."""
    axes, shape = kernel.neuron_axis, kernel.shape
    if shape is not None:
        if axes is None or misfit(shape, axes, kernel.groups) is not None:
            return 0
        return math.prod(shape[axis] for axis in axes) // (kernel.groups or 1)
    names = ["units", "filters"]
    if kernel.attribute == "embeddings":
        names = ["input_dim" if axes in ((0,), (-2,)) else "output_dim"]
    sizes = [getattr(kernel.layer, name, None) for name in names]
    return max((size for size in sizes if isinstance(size, int)), default=0)


def has_many_neurons(found: ModelKernel) -> bool:
    """Whether a kernel has many neurons. All kernels of attention share one regularizer."""
    attention = [owner for owner in found.owners if isinstance(owner, ATTENTION)]
    parts = (parts_of(attention[0]) or {}).values() if attention else ()
    kernels = [found.kernel, *(kernel for part in parts for kernel in own_kernels(part))]
    return max(map(expected_neurons, kernels)) > MANY_NEURONS


def of_random_groups(energy: MHE, sampling: Sampling) -> MHE:
    """The same energy, of random groups."""
    energy = copy.copy(energy)
    energy.sample, energy.sample_groups = sampling
    return energy


def takes_all_pairs(energy: Any) -> bool:
    """Whether an energy computes all pairs of neurons."""
    return isinstance(energy, _ALL_PAIRS) and getattr(energy, "sample", None) is None
