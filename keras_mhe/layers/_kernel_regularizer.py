"""The regularizer that the layer wrapper assigns to each kernel of its layer."""

import warnings
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import outside_torch_graphs, update_if
from keras_mhe._random import fingerprint
from keras_mhe._typing import Shape, State, Tensor
from keras_mhe.energies._neurons import matrix_sizes, neuron_matrix
from keras_mhe.kernels._layer import Kernel, layers_within
from keras_mhe.kernels._skip_reasons import misfit
from keras_mhe.regularizers._base import HypersphericalRegularizer, as_loss, terms_of

# Sentinel: no fingerprint of a kernel equals it.
_NO_KERNEL = keras.initializers.Constant(-1)


def split_energy(regularizer: Any) -> tuple[HypersphericalRegularizer, list[Any]]:
    """The one energy in a regularizer, and the other terms."""
    terms = terms_of(regularizer)
    energies = [term for term in terms if isinstance(term, HypersphericalRegularizer)]
    if len(energies) != 1:
        raise ValueError(
            "Invalid value for argument `regularizer`. Expected one regularizer of keras_mhe, or "
            "its sum with regularizers of Keras; to add a second one, wrap the layer twice. "
            f"Received: regularizer={regularizer!r}"
        )
    return energies[0], [term for term in terms if term is not energies[0]]


class _OtherTerms(keras.Regularizer):
    """Terms that are no energies, for the factor B of LoRA."""

    def __init__(self, terms: list[Any]) -> None:
        self.terms = terms

    def __call__(self, weight: Tensor) -> Tensor:
        return sum(as_loss(term(weight)) for term in self.terms)


class KernelRegularizer(keras.Regularizer):
    """The regularizer of one kernel: that of the wrapper, with its factor and its state.

    It is assigned to the kernel. With LoRA it is assigned to the factor A, and regularizes the
    effective kernel; terms that are no energies regularize both factors, as in Keras.

    Args:
        wrapper: the `HypersphericalRegularization`.
        kernel: a kernel of its layer.
    """

    def __init__(self, wrapper: Any, kernel: Kernel) -> None:
        self.energy, self.others = split_energy(wrapper.regularizer)
        self.wrapper, self.warned = wrapper, False
        # Without the variable: the memory of a kernel that is quantized later must become free.
        self.kernel = kernel._replace(variable=None)
        self.weights = kernel.trained_weights
        if not self.weights and kernel.quantization is None:
            raise ValueError(
                f"The {kernel.name} of the layer is not one floating-point variable. "
                f"Received: layer={wrapper.layer}"
            )
        # The layer's own regularizer, without an earlier wrapper of the same layer.
        self.own = self.weights[0].regularizer if self.weights else None
        inside = layers_within(wrapper.layer)
        while isinstance(self.own, KernelRegularizer) and self.own.wrapper not in inside:
            self.own = self.own.own
        if self.own is not None:
            self.others = [self.own, *self.others]
        self.neuron_axis: Any = self.energy.neuron_axis
        self.groups = self.energy.groups
        if self.neuron_axis is None:
            if kernel.neuron_axis is None:
                raise ValueError(
                    f"The axis of the neurons in the {kernel.name} of the layer is unknown. Name "
                    "it in the regularizer: `neuron_axis=0` for rows, `neuron_axis=-1` for "
                    f"columns. Received: layer={wrapper.layer}, regularizer={self.energy!r}"
                )
            self.neuron_axis = kernel.neuron_axis
            self.groups = kernel.groups if self.groups is None else self.groups
        shape = tuple(kernel.variable.shape)
        reason = misfit(shape, self.neuron_axis, self.groups)
        if reason is not None:
            raise ValueError(f"The {kernel.name} of {wrapper.layer} does not fit: {reason}.")
        groups, dimension, neurons = matrix_sizes(shape, self.neuron_axis, self.groups)
        if neurons == 1 and groups > 1:
            raise ValueError(
                f"Each group of the {kernel.name} has one neuron, so there is no pair of neurons. "
                "To let the neurons of all groups compete, name their axes in the regularizer, "
                f"`neuron_axis={self.neuron_axis}`, or do not wrap the layer. Received: "
                f"layer={wrapper.layer}, kernel.shape={shape}, groups={self.groups}"
            )
        normal, suffix = keras.initializers.RandomNormal(stddev=1.0), kernel.name.replace("/", "_")
        wide = keras.backend.standardize_dtype(kernel.variable.dtype) == "float64"
        dtype = "float64" if wide else "float32"
        # The names do not begin with the name of the kernel: a pattern for the kernel in a user's
        # layout map must not match them.
        self.state = {
            name: wrapper.add_state(f"{name}_of_{suffix}", normal, shape, dtype)
            for name, shape in self._state_shapes(dimension).items()
        }
        # The kernel from which the state learned last. Keras offers no counter of steps that would
        # distinguish two calls in one step. It is a float because TensorFlow keeps int32 variables
        # off GPUs, where XLA cannot use them. Saved files know it as `seen`.
        self.last_fingerprint = None
        if self.state:
            self.last_fingerprint = wrapper.add_state(
                f"seen_of_{suffix}", _NO_KERNEL, (), "float32"
            )

    def _state_shapes(self, dimension: int) -> dict[str, Shape]:
        try:
            return self.energy.state_shapes(dimension)
        except ValueError as error:
            layer = self.wrapper.layer
            raise ValueError(f"The {self.kernel.name} of {layer} does not fit. {error}") from None

    def attach(self) -> None:
        """Assigns itself to the weights that training changes."""
        self.weights = self.kernel.trained_weights
        # The factor B of LoRA has no energy of its own.
        others = _OtherTerms(self.others) if self.others else None
        for weight, regularizer in zip(self.weights, (self, others), strict=False):
            weight.regularizer = regularizer

    def follow_layer(self) -> None:
        """Assigns itself to other weights if LoRA or quantization has replaced them."""
        weights = self.kernel.trained_weights
        if list(map(id, weights)) == list(map(id, self.weights)):
            return
        # Another wrapper may have replaced this one.
        if not self.weights or self.weights[0].regularizer is self:
            for weight in self.weights:
                weight.regularizer = self.own
            self.attach()

    def warn_without_weights(self) -> None:
        """Warns once if training cannot change the kernel, so that it has no energy."""
        if not self.weights and not self.warned:
            self.warned = True
            mode = self.kernel.quantization
            reason = f"quantized, {mode}" if mode else "no longer one floating-point variable"
            warnings.warn(
                f"The {self.kernel.name} of the layer {self.kernel.layer.name} has no energy any "
                f"more: it is {reason}.",
                stacklevel=2,
            )

    def neurons(self, kernel: Tensor) -> Tensor:
        return neuron_matrix(kernel, self.neuron_axis, self.groups)

    def values(self) -> State:
        return {name: ops.convert_to_tensor(value) for name, value in self.state.items()}

    def effective_kernel(self) -> Tensor:
        return ops.convert_to_tensor(getattr(self.kernel.layer, self.kernel.attribute))

    @outside_torch_graphs
    def update_state(self) -> None:
        """Updates the state, once for each value of the kernel."""
        if self.last_fingerprint is None or not any(w.trainable for w in self.weights):
            return
        matrix = self.neurons(ops.stop_gradient(self.effective_kernel()))
        # A float32 holds integers of 24 bits exactly.
        bits = ops.convert_to_tensor(2**24 - 1, "int32")
        current = ops.cast(ops.bitwise_and(fingerprint(matrix), bits), "float32")
        state = self.values()
        new = update_if(
            ops.not_equal(current, ops.convert_to_tensor(self.last_fingerprint)),
            lambda: self.energy.update_state(matrix, state),
            state,
        )
        for name, variable in self.state.items():
            variable.assign(new[name])
        self.last_fingerprint.assign(current)

    @outside_torch_graphs
    def __call__(self, weight: Tensor) -> Tensor:
        kernel = weight if len(self.weights) == 1 else self.effective_kernel()
        matrix = self.neurons(kernel)
        loss = self.energy.weighted_energy(matrix, self.values(), self.wrapper.factor)
        return sum((as_loss(other(weight)) for other in self.others), loss)


def own_regularizer(regularizer: Any) -> Any:
    """The regularizer of a weight without those of wrappers around its layer."""
    while isinstance(regularizer, KernelRegularizer):
        regularizer = regularizer.own
    return regularizer
