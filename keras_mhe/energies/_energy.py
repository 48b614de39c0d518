"""The hyperspherical energy of a kernel."""

from keras_mhe._backend import compiles_apart, has_compiler, on_cpu, outside_torch_graphs
from keras_mhe._typing import NeuronAxis, Tensor
from keras_mhe.energies._neurons import neuron_matrix
from keras_mhe.energies._pair_sums import is_computed_at_once, panel_width
from keras_mhe.energies._pairs import value_and_tangent, value_and_tangent_by_mixing
from keras_mhe.energies._potential import Potential, PotentialSpec
from keras_mhe.energies._programs import EnergyProgram


def energy_program(matrix: Tensor, potential: Potential) -> EnergyProgram:
    """The energy of all pairs of neurons, for a matrix `(d, n)` or `(groups, d, n)`."""
    by_matrix = panel_width(matrix.shape[-1]) is None
    # Elsewhere, two passes over the neurons are quicker than more operations on pairs.
    by_mixing = by_matrix and has_compiler() and on_cpu() and is_computed_at_once(matrix.shape)
    by_mixing = by_mixing and not potential.may_underflow
    return EnergyProgram(
        value_and_tangent_by_mixing if by_mixing else value_and_tangent,
        (potential,),
        twice_differentiable=by_matrix,
        by_parts=by_mixing and compiles_apart(),
    )


@outside_torch_graphs
def hyperspherical_energy(
    kernel: Tensor,
    s: float | None = None,
    *,
    distance: str = "euclidean",
    t: float | None = None,
    half_space: bool = False,
    neuron_axis: NeuronAxis = None,
    groups: int | None = None,
    softening: float | str = "auto",
) -> Tensor:
    """Riesz s-energy of the neurons of a kernel, projected onto the unit sphere.

    `E = mean over i != j of |u_i - u_j|^(-s)`, where `u_i = w_i / |w_i|`. For `s = 0` it is the
    mean of `-log |u_i - u_j|`. With `distance="angular"`, the angle `arccos(u_i . u_j)` in radians
    replaces the distance. With `distance="gaussian"`, it is the uniformity loss,
    `E = log mean over i != j of exp(-t |u_i - u_j|^2)`. In half space the mean is over the 2N
    points `u_i` and `-u_i`, including the constant pairs `(u_i, -u_i)`. Neurons then also repel
    each other's mirror images.

    The gradient is analytic, and its part for each neuron is orthogonal to that neuron. Value and
    gradient together take two matrix products. For more than about a thousand neurons they are
    computed by panels, in memory proportional to the kernel. A neuron of norm zero has cosine 0
    with all others and gradient 0. A single neuron has energy 0 (in half space, the energy of its
    own pair) and gradient 0. The gradient of a neuron is limited if its norm is less than 1 % of
    the root mean square norm; otherwise it would grow without limit as the norm decreases.

    Args:
        kernel: floating-point tensor or variable of shape `(..., N)`, with at least two axes and
            one neuron in each column; use `neuron_axis` for other shapes. The energy is computed
            in float32, or in float64 for a float64 kernel.
        s: power of the potential, zero or larger; 0 means the logarithm. `None` means 2. A Gaussian
            has none. A potential overflows in float32 if its steepest slope,
            `s * epsilon^(-s/2 - 1)`, exceeds 1e38. Here epsilon is the square of the softening
            distance.
        distance: `"euclidean"`, `"angular"` or `"gaussian"`.
        t: rate of the Gaussian, a positive number of at most 100; `None` means 2. Other potentials
            have none. In float32, the error of the energy is about `1e-7 (1 + t)`.
        half_space: whether to include the mirror images `-u_i` of the neurons.
        neuron_axis: the axis or axes of the kernel that index neurons. The other axes are
            coordinates. `None` means the last axis, as in Dense and Conv.
        groups: number of equal, contiguous groups of neurons, as in grouped convolutions. Only
            neurons of the same group repel each other. `None` means 1. The energy is the mean
            over groups; that of a Gaussian is the logarithm of the mean over all pairs of all
            groups.
        softening: Euclidean distance below which the potential is continued linearly in the
            cosine, so that forces stay finite. `"auto"` chooses at most 0.32, and less for a more
            crowded sphere. 0 gives the singular potential, down to the distance that rounding
            still resolves. For angular distances the slope in the cosine is infinite at 180
            degrees, so it is limited near 180 degrees. There, the gradient is not the derivative
            of the value. A Gaussian has no softening, because it is finite everywhere.

    Returns:
        Scalar tensor, without unit.

    Raises:
        TypeError: if the kernel is not floating point, or an argument has the wrong type.
        ValueError: if an argument is out of range, the kernel has fewer than two axes or does not
            have an axis of `neuron_axis`, or `groups` does not divide the number of neurons.
        NotImplementedError: if second derivatives are requested of an energy that is computed by
            panels.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS. For the
    Gaussian: Wang and Isola (2020), "Understanding contrastive representation learning through
    alignment and uniformity on the hypersphere", ICML.

    Examples:
        >>> import numpy as np
        >>> from keras_mhe import hyperspherical_energy
        >>> square = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]], "float32")
        >>> round(float(hyperspherical_energy(square)), 4)  # (1/2 + 1/2 + 1/4) / 3
        0.4167
    """
    spec = PotentialSpec(s, distance, half_space, softening, t)
    matrix = neuron_matrix(kernel, neuron_axis, groups)
    return energy_program(matrix, spec.of_neurons(matrix)).energy(matrix)
