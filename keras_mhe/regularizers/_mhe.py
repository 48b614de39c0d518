"""Minimum hyperspherical energy, in full space and in half space."""

from typing import Any

import keras

from keras_mhe._typing import NeuronAxis, State, Tensor
from keras_mhe.energies._batch import batch_program
from keras_mhe.energies._drawn import DrawnProgram, check_sample_groups
from keras_mhe.energies._energy import energy_program
from keras_mhe.energies._minibatch import check_sample, sampled_program
from keras_mhe.energies._neurons import check_axes
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._programs import EnergyProgram
from keras_mhe.regularizers._potential_base import PotentialRegularizer


@keras.saving.register_keras_serializable(package="keras_mhe")
class MHE(PotentialRegularizer):
    """Minimum hyperspherical energy: pushes the directions of a layer's neurons apart.

    `loss = factor * mean over i != j of |u_i - u_j|^(-s)`, where `u_i` are the neurons (columns of
    the kernel) on the unit sphere. `hyperspherical_energy` documents `s = 0`, angles and half
    space. With `distance="gaussian"`, it is the uniformity loss,
    `loss = factor * log mean over i != j of exp(-t |u_i - u_j|^2)`.

    The loss does not depend on the norms of the neurons. Combine it with weight decay, as the
    papers do: `MHE(1.0) + keras.regularizers.L2(5e-4)`.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 1 in hidden layers (half space)
            and 10 in the output layer (full space).
        s: power of the potential, zero or larger; 0 means the logarithm. `None` means 2. A Gaussian
            has none.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of the Gaussian, a positive number of at most 100; `None` means 2. The larger it
            is, the more the closest pairs dominate. Other potentials have none.
        half_space: whether to include the mirror images `-u_i` of the neurons. Use it in layers
            where a neuron and its negative are redundant. `HalfSpaceMHE` is the short form.
        neuron_axis: the axis or axes of the kernel that index neurons. The other axes are
            coordinates. `None` means the last axis, as in Dense and Conv. Use -2 for transposed
            convolutions and 0 for Embedding. In `HypersphericalRegularization` and `regularize`,
            `None` means the axes of the layer.
        groups: number of equal, contiguous groups of neurons: the `groups` of a convolution, 4 for
            an LSTM, 3 for a GRU. Only neurons of the same group repel each other. `None` means 1,
            or the groups of the layer in `HypersphericalRegularization` and `regularize`. The loss
            is the mean over groups. With a Gaussian, the mean is under the logarithm.
        sample: number of neurons in a random group. At each step, neurons repel each other only
            inside such groups, which are drawn again when the kernel has changed. The loss is an
            unbiased estimate, in time and memory `O(N * sample)`. Use it for layers of tens of
            thousands of neurons. `None` means all pairs, as does a number that is not smaller than
            the number of neurons. With a Gaussian, only the mean under the logarithm is unbiased,
            and the loss is slightly too small on average.
        sample_groups: number of these groups at each step. `None` means as many as the layer has.
            With a number, all neurons of the groups are drawn independently, and only they have a
            gradient. The loss is an unbiased estimate as well, in time and memory
            `O(sample_groups * sample^2)`. `MHE(sample=256, sample_groups=1)` suits a large
            embedding in a small model. Groups that would have more neurons than the layer cover it.
        softening: Euclidean distance below which the potential is continued linearly in the
            cosine, so that training does not diverge. `"auto"` chooses it from the numbers of
            neurons and coordinates, and 0 gives the singular potential. A Gaussian accepts only
            `"auto"`, and is not softened.
        scale: unit of the loss. With `"energy"`, the loss is `factor * E`. With `"position"`, it is
            `factor * (E - A) / (U - A)`, where A is `reference.attainable_energy` and U is
            `reference.uniform_energy`: about 0 for the best arrangement and `factor` for random
            neurons, in every layer. The loss is zero if all arrangements have the same energy.
        bounded: whether to bound the gradient of each neuron `w_i` so that
            `|gradient_i| <= 1 / max(|w_i|, 0.5)`. This prevents that a step moves a neuron far.
            Shorter gradients are exact, so minima do not move. The loss itself is not changed.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`.
        NotImplementedError: if second derivatives are requested of an energy that is sampled or
            computed by panels.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS. For the
    Gaussian: Wang and Isola (2020), "Understanding contrastive representation learning through
    alignment and uniformity on the hypersphere", ICML.

    Examples:
        >>> import keras
        >>> from keras_mhe import MHE
        >>> layer = keras.layers.Dense(10, kernel_regularizer=MHE(10.0, s=0))
        >>> layer.build((None, 32))
        >>> len(layer.losses)
        1
    """

    of_batches = True

    def __init__(
        self,
        factor: float = 1.0,
        s: float | None = None,
        *,
        distance: str = "euclidean",
        t: float | None = None,
        half_space: bool = False,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        sample: int | None = None,
        sample_groups: int | None = None,
        softening: float | str = "auto",
        scale: str = "energy",
        bounded: bool = True,
    ) -> None:
        spec = PotentialSpec(s, distance, half_space, softening, t)
        super().__init__(factor, spec, neuron_axis, groups, scale, bounded)
        self.sample = check_sample(sample)
        self.sample_groups = check_sample_groups(sample_groups, self.sample)

    def _drawn(self, n: int) -> int | None:
        """The number of neurons in all groups, or None if the groups cover the layer."""
        if self.sample is None or self.sample_groups is None:
            return None
        return drawn if (drawn := self.sample * self.sample_groups) < n else None

    def moving(self, n: int) -> int:
        return self._drawn(n) or n

    def program(self, matrix: Tensor, state: State) -> EnergyProgram | DrawnProgram:
        potential = self.spec.of_neurons(matrix)
        if self.sample is None:
            return energy_program(matrix, potential)
        if self._drawn(matrix.shape[-1]) is None:
            return sampled_program(matrix, potential, self.sample)
        assert self.sample_groups is not None
        as_rows = check_axes(self.neuron_axis, None)[0] in ((0,), (-2,))
        return DrawnProgram(potential, self.sample_groups, self.sample, as_rows)

    def batch_program(self, points: Tensor, n: Any) -> EnergyProgram:
        return batch_program(points, n, self.spec)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "sample": self.sample}
        if self.sample_groups is not None:
            config["sample_groups"] = self.sample_groups
        return config


@keras.saving.register_keras_serializable(package="keras_mhe")
class HalfSpaceMHE(MHE):
    """Minimum hyperspherical energy in half space: `MHE` with `half_space=True`.

    `loss = factor * mean over p != q of |p - q|^(-s)`, where p and q are any two of the 2N points
    `u_i` and `-u_i`: the neurons on the unit sphere and their mirror images. Neurons also repel
    each other's mirror images, because a neuron and its negative carry the same information in a
    hidden layer. The papers use half space in hidden layers.

    The input is a kernel of shape `(..., N)` with one neuron in each column; the output is a scalar
    without unit.

    Args:
        factor: weight in the loss, zero or larger. The papers use 1 in hidden layers.
        s: power of the potential, zero or larger; 0 means the logarithm. `None` means 2. A Gaussian
            has none.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`, as in `MHE`.
        t: rate of the Gaussian, as in `MHE`.
        neuron_axis: the axis or axes of the kernel that index neurons, as in `MHE`. `None` means
            the last axis.
        groups: number of equal, contiguous groups of neurons, as in `MHE`. `None` means 1. The loss
            is the mean over groups. With a Gaussian, the mean is under the logarithm.
        sample: number of neurons in a random group, as in `MHE`. `None` means all pairs.
        sample_groups: number of these groups at each step, as in `MHE`. `None` means all.
        softening: distance below which the potential is continued linearly, as in `MHE`.
        scale: unit of the loss, `"energy"` or `"position"`, as in `MHE`.
        bounded: whether to bound the gradient, as in `MHE`.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the first
            call, also if a kernel does not fit `neuron_axis` or `groups`.
        NotImplementedError: if second derivatives are requested of an energy that is sampled or
            computed by panels.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS.

    Examples:
        >>> import keras
        >>> from keras_mhe import HalfSpaceMHE
        >>> decay = keras.regularizers.L2(5e-4)
        >>> layer = keras.layers.Conv2D(64, 3, kernel_regularizer=HalfSpaceMHE(1.0) + decay)
    """

    def __init__(
        self,
        factor: float = 1.0,
        s: float | None = None,
        *,
        distance: str = "euclidean",
        t: float | None = None,
        neuron_axis: NeuronAxis = None,
        groups: int | None = None,
        sample: int | None = None,
        sample_groups: int | None = None,
        softening: float | str = "auto",
        scale: str = "energy",
        bounded: bool = True,
    ) -> None:
        super().__init__(
            factor,
            s,
            distance=distance,
            t=t,
            half_space=True,
            neuron_axis=neuron_axis,
            groups=groups,
            sample=sample,
            sample_groups=sample_groups,
            softening=softening,
            scale=scale,
            bounded=bounded,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["half_space"]
        return config
