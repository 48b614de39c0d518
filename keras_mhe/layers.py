"""The layer wrapper: finds the neurons of a layer, and stores factor and state of a regularizer."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_mhe._backend import outside_torch_graphs, update_if
from keras_mhe._random import fingerprint
from keras_mhe._typing import Shape, State, Tensor
from keras_mhe.energies._neurons import neuron_matrix
from keras_mhe.kernels._layer import Kernel, layer_kernels, layers_within
from keras_mhe.regularizers._base import HypersphericalRegularizer, as_loss, terms_of

# Sentinel: no fingerprint of a kernel equals it.
_NO_KERNEL = keras.initializers.Constant(-1)


def _split(regularizer: Any) -> tuple[HypersphericalRegularizer, list[Any]]:
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


class _KernelRegularizer(keras.Regularizer):
    """The regularizer of one kernel: that of the wrapper, with its factor and its state."""

    def __init__(self, wrapper: "HypersphericalRegularization", kernel: Kernel) -> None:
        self.energy, self.others = _split(wrapper.regularizer)
        self.wrapper, self.variable = wrapper, kernel.variable
        # The layer's own regularizer, without an earlier wrapper of the same layer.
        self.own, inside = self.variable.regularizer, layers_within(wrapper.layer)
        while isinstance(self.own, _KernelRegularizer) and self.own.wrapper not in inside:
            self.own = self.own.own
        if self.own is not None:
            self.others = [self.own, *self.others]
        self.neuron_axis: Any = self.energy.neuron_axis
        self.groups = self.energy.groups
        if self.neuron_axis is None:
            self.neuron_axis = kernel.neuron_axis
            self.groups = kernel.groups if self.groups is None else self.groups
        matrix = self.neurons(self.variable)
        if matrix.shape[-1] == 1 and len(matrix.shape) == 3:
            raise ValueError(
                f"Each group of the {kernel.name} has one neuron, so there is no pair of neurons. "
                "To let the neurons of all groups compete, name their axes in the regularizer, "
                f"`neuron_axis={self.neuron_axis}`, or do not wrap the layer. Received: "
                f"layer={wrapper.layer}, kernel.shape={tuple(self.variable.shape)}, "
                f"groups={self.groups}"
            )
        normal, suffix = keras.initializers.RandomNormal(stddev=1.0), kernel.name.replace("/", "_")
        # The names do not begin with the name of the kernel: a pattern for the kernel in a user's
        # layout map must not match them.
        self.state = {
            name: wrapper.add_state(f"{name}_of_{suffix}", normal, shape, matrix.dtype)
            for name, shape in self._state_shapes(kernel.name, matrix.shape[-2]).items()
        }
        # The kernel from which the state learned last. Keras offers no counter of steps that would
        # distinguish two calls in one step. It is a float because TensorFlow keeps int32 variables
        # off GPUs, where XLA cannot use them. Saved files know it as `seen`.
        self.last_fingerprint = None
        if self.state:
            self.last_fingerprint = wrapper.add_state(
                f"seen_of_{suffix}", _NO_KERNEL, (), "float32"
            )

    def _state_shapes(self, name: str, dimension: int) -> dict[str, Shape]:
        try:
            return self.energy.state_shapes(dimension)
        except ValueError as error:
            layer = self.wrapper.layer
            raise ValueError(f"The {name} of {layer} does not fit. {error}") from None

    def neurons(self, kernel: Tensor) -> Tensor:
        return neuron_matrix(kernel, self.neuron_axis, self.groups)

    def values(self) -> State:
        return {name: ops.convert_to_tensor(value) for name, value in self.state.items()}

    @outside_torch_graphs
    def update_state(self) -> None:
        """Updates the state, once for each value of the kernel."""
        if self.last_fingerprint is None or not self.variable.trainable:
            return
        matrix = self.neurons(ops.stop_gradient(ops.convert_to_tensor(self.variable)))
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
    def __call__(self, kernel: Tensor) -> Tensor:
        matrix = self.neurons(kernel)
        loss = self.energy.weighted_energy(matrix, self.values(), self.wrapper.factor)
        return sum((as_loss(other(kernel)) for other in self.others), loss)


def own_regularizer(regularizer: Any) -> Any:
    """The regularizer of a weight without those of wrappers around its layer."""
    while isinstance(regularizer, _KernelRegularizer):
        regularizer = regularizer.own
    return regularizer


@keras.saving.register_keras_serializable(package="keras_mhe")
class HypersphericalRegularization(keras.layers.Wrapper):
    """Wraps a layer and regularizes the directions of its neurons. The outputs stay the same.

    `loss = factor * energy(neurons)` for each kernel of the layer. A kernel counts once, even if
    the layer is called several times. Unlike `kernel_regularizer=`, the wrapper

    - knows which axes of the layer's kernels index neurons, and which groups of neurons compete.
      It supports transposed and grouped convolutions, recurrent layers (kernel and recurrent
      kernel, one group for each gate), EinsumDense, attention (every projection), Embedding, and
      wrapped layers;
    - stores what a regularizer learns (the projections of `AngleProjection` and
      `AdversarialProjection`, the poles of `MHP` and `MHC`) and saves it with the model. It updates
      this state once in each training step in which the kernel has changed;
    - stores the factor in a variable, which a callback can change between steps.

    The layer's own regularizer is added to the energy. A frozen layer adds nothing to the loss. If
    you wrap a layer again, the new wrapper replaces the old one. A wrapper around a wrapper adds a
    second energy. The kernels keep the regularizer until the process ends, even if the layer is
    also used without the wrapper.

    Args:
        layer: a layer with a kernel or embeddings, built or not.
        regularizer: a regularizer of this package, or its sum with regularizers of Keras. If its
            `neuron_axis` is None, the layer determines which axes index neurons. Filters of
            DepthwiseConv then compete only within their channel.
        **kwargs: arguments of `keras.layers.Layer`.

    Attributes:
        factor: scalar variable, the weight of the energy. Its initial value is the factor of the
            regularizer. On JAX, a callback that assigns to it after a batch must first call
            `self.model.jax_state_sync()`, as for any variable of Keras. After an epoch this is not
            necessary.
        state: dict of variables with the learned state: `"projection"` of shape `(dim, d)`,
            `"pole"` of shape `(d,)`. If the layer has several kernels, each name begins with the
            name of the kernel: `"recurrent_kernel/projection"`.

    Raises:
        TypeError, ValueError: if `layer` is no layer, or `regularizer` does not contain exactly one
            regularizer of this package. When the wrapper is built, if the layer has neither a
            kernel nor embeddings, or if a kernel does not fit the regularizer.

    Source: Lin et al. (2020), "Regularizing Neural Networks via Minimizing Hyperspherical
    Energy", CVPR.

    Examples:
        >>> import keras
        >>> from keras_mhe import CoMHE, HypersphericalRegularization
        >>> regularizer = CoMHE(projection="adversarial")
        >>> model = keras.Sequential([
        ...     keras.Input((28, 28, 1)),
        ...     HypersphericalRegularization(keras.layers.Conv2D(64, 7), regularizer),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> tuple(model.layers[0].state["projection"].shape)
        (30, 49)
        >>> len(model.losses)
        1
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        regularizer: keras.Regularizer,
        **kwargs: Any,
    ) -> None:
        # The inner layer casts its inputs and weights. The state is computed from uncast weights.
        if isinstance(layer, keras.layers.Layer):
            kwargs.setdefault("dtype", layer.variable_dtype)
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking
        self.regularizer = keras.regularizers.get(regularizer)
        energy, _ = _split(self.regularizer)
        initial = keras.initializers.Constant(energy.factor)
        wide = keras.backend.result_type("float32", keras.config.floatx())
        self.factor = self.add_state("factor", initial, (), wide)
        self._kernel_regularizers: dict[str, _KernelRegularizer] = {}

    def add_state(self, name: str, initializer: Any, shape: Shape, dtype: str) -> keras.Variable:
        """Adds a variable that no optimizer updates."""
        variable = self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
            # All replicas compute the same value from the same weights.
            aggregation="only_first_replica",
        )
        # TensorFlow's checkpoints contain the variables that are attributes of a layer.
        setattr(self, f"_{name}", variable)
        return variable

    @property
    def state(self) -> dict[str, keras.Variable]:
        regularizers = self._kernel_regularizers
        return {
            name if len(regularizers) == 1 else f"{kernel}/{name}": variable
            for kernel, regularizer in regularizers.items()
            for name, variable in regularizer.state.items()
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if not args:
            first = next(iter(inspect.signature(self.layer.call).parameters), None)
            args = (kwargs.pop(first),) if first in kwargs else args
        if not self.layer.built and self._needs_shapes():
            self._build_by_arguments(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _needs_shapes(self) -> bool:
        """Whether the layer is built from several shapes, as attention is."""
        parameters = inspect.signature(self.layer.build).parameters.values()
        return len([p for p in parameters if p.default is p.empty]) > 1

    def _build_by_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Builds the layer from all its inputs: Keras passes only the first shape to a wrapper."""
        named = inspect.signature(self.layer.call).bind_partial(*args, **kwargs).arguments
        wanted = inspect.signature(self.layer.build).parameters
        self.layer.build(
            **{
                f"{name}_shape": tuple(value.shape)
                for name, value in named.items()
                if value is not None and f"{name}_shape" in wanted
            }
        )

    def build(self, input_shape: Any = None) -> None:
        if not self.layer.built and self._needs_shapes():
            raise ValueError(
                "A layer with several inputs cannot be built from one shape. Call its wrapper with "
                "all inputs, or build the layer first. "
                f"Received: layer={self.layer}, input_shape={input_shape}"
            )
        super().build(input_shape)
        if not self._kernel_regularizers:
            self._kernel_regularizers = {
                kernel.name: _KernelRegularizer(self, kernel)
                for kernel in layer_kernels(self.layer)
            }
            self.attach()

    def attach(self) -> None:
        """Makes this wrapper regularize its kernels, even if another one has replaced it."""
        for regularizer in self._kernel_regularizers.values():
            regularizer.variable.regularizer = regularizer

    def call(
        self, inputs: Tensor, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Tensor:
        if training:
            for regularizer in self._kernel_regularizers.values():
                regularizer.update_state()
        return self.layer(inputs, *args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # Computed by a call: the shape of the first input is not enough for several inputs.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor) -> Tensor:
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer}
