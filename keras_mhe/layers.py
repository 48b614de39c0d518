"""The layer wrapper: regularizers that learn, factors that change, neurons found by themselves."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_mhe.axes import neuron_matrix
from keras_mhe.kernels import Kernel, kernels_of, layers_within
from keras_mhe.regularizers import HypersphericalRegularizer, as_loss, terms_of
from keras_mhe.seeds import fingerprint

# What no kernel is marked with.
_NO_KERNEL = keras.initializers.Constant(-1)


def _split(regularizer: Any) -> tuple[HypersphericalRegularizer, list[Any]]:
    """The one energy in a regularizer, and what it is added to."""
    terms = terms_of(regularizer)
    energies = [term for term in terms if isinstance(term, HypersphericalRegularizer)]
    if len(energies) != 1:
        raise ValueError(
            "Invalid value for argument `regularizer`. Expected one regularizer of keras_mhe, or "
            "its sum with others of Keras; for a second one wrap the layer twice. "
            f"Received: regularizer={regularizer!r}"
        )
    return energies[0], [term for term in terms if term is not energies[0]]


class _Bound(keras.Regularizer):
    """The regularizer of one kernel: the wrapper's, with its factor and what it has learned."""

    def __init__(self, wrapper: "HypersphericalRegularization", kernel: Kernel) -> None:
        self.energy, self.others = _split(wrapper.regularizer)
        self.wrapper, self.variable = wrapper, kernel.variable
        # What the layer has been given besides, but not by a wrapper that it had before.
        self.own, inside = self.variable.regularizer, layers_within(wrapper.layer)
        while isinstance(self.own, _Bound) and self.own.wrapper not in inside:
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
                f"Each group of the {kernel.name} has one neuron, which has no other to be pushed "
                "from. To let all of them compete name their axes in the regularizer, "
                f"`neuron_axis={self.neuron_axis}`, or leave the layer bare. Received: "
                f"layer={wrapper.layer}, kernel.shape={tuple(self.variable.shape)}, "
                f"groups={self.groups}"
            )
        normal, suffix = keras.initializers.RandomNormal(stddev=1.0), kernel.name.replace("/", "_")
        # Names that do not begin with the kernel's, which a user's pattern for layouts may match.
        self.state = {
            name: wrapper.add_state(f"{name}_of_{suffix}", normal, shape, matrix.dtype)
            for name, shape in self._state_shapes(kernel.name, matrix.shape[-2]).items()
        }
        # The kernel from which the state last learned. A counter of steps, which could tell
        # two calls in one step apart, is nowhere to be had. A float: TensorFlow keeps int32
        # variables off GPUs, where XLA then cannot reach them.
        self.seen = None
        if self.state:
            self.seen = wrapper.add_state(f"seen_of_{suffix}", _NO_KERNEL, (), "float32")

    def _state_shapes(self, name: str, dimension: int) -> dict[str, tuple[int, ...]]:
        try:
            return self.energy.state_shapes(dimension)
        except ValueError as error:
            layer = self.wrapper.layer
            raise ValueError(f"The {name} of {layer} does not fit. {error}") from None

    def neurons(self, kernel: Any) -> Any:
        return neuron_matrix(kernel, self.neuron_axis, self.groups)

    def values(self) -> dict[str, Any]:
        return {name: ops.convert_to_tensor(value) for name, value in self.state.items()}

    def learn(self) -> None:
        """Lets the state learn from the kernel, once for each kernel."""
        if self.seen is None or not self.variable.trainable:
            return
        matrix = self.neurons(ops.stop_gradient(ops.convert_to_tensor(self.variable)))
        # As many bits as a float32 holds exactly.
        bits = ops.convert_to_tensor(2**24 - 1, "int32")
        mark = ops.cast(ops.bitwise_and(fingerprint(matrix), bits), "float32")
        state = self.values()
        new = ops.cond(
            ops.equal(mark, ops.convert_to_tensor(self.seen)),
            lambda: state,
            lambda: self.energy.advanced(matrix, state),
        )
        for name, variable in self.state.items():
            variable.assign(new[name])
        self.seen.assign(mark)

    def __call__(self, kernel: Any) -> Any:
        energy = self.energy.energy(self.neurons(kernel), self.values())
        loss = as_loss(ops.cast(self.wrapper.factor, energy.dtype) * energy)
        return sum((as_loss(other(kernel)) for other in self.others), loss)


def own_regularizer(regularizer: Any) -> Any:
    """What a weight is regularized by beside wrappers of its layer."""
    while isinstance(regularizer, _Bound):
        regularizer = regularizer.own
    return regularizer


@keras.saving.register_keras_serializable(package="keras_mhe")
class HypersphericalRegularization(keras.layers.Wrapper):
    """Wraps a layer and regularizes the directions of its neurons; its outputs stay as they are.

    `loss = factor * energy(neurons)` for every kernel of the layer, once however often the layer
    is called. Against `kernel_regularizer=` the wrapper

    - knows which axes of the layer's kernels are neurons, and which groups of them compete:
      transposed and grouped convolutions, recurrent layers (kernel and recurrent kernel, by
      gate), EinsumDense and attention (every projection), Embedding, wrapped layers;
    - keeps what a regularizer learns (`AngleProjection`, `AdversarialProjection`, the poles of
      `MHP` and `MHC`) and saves it with the model. It learns once in each training step for which
      the kernel has moved;
    - holds the factor as a variable, which a callback can change between steps.

    A regularizer that the layer has of its own is added. A frozen layer adds nothing. Wrapping a
    layer anew replaces the wrapper that it had; a wrapper around a wrapper adds its energy. While
    the process lasts the kernels keep the regularizer, also where the layer is used unwrapped.

    Args:
        layer: a layer with a kernel or embeddings; built or not.
        regularizer: a regularizer of this package, or its sum with others of Keras. Where its
            `neuron_axis` is None, the layer says which axes are neurons; filters of
            DepthwiseConv compete within their channel only, unless it is named.
        **kwargs: those of `keras.layers.Layer`.

    Attributes:
        factor: scalar variable, the weight of the energy; at first that of the regularizer. On
            JAX a callback that assigns to it at a batch, not at an epoch, first calls
            `self.model.jax_state_sync()`, as Keras asks for any variable.
        state: dict of variables, what was learned: `"projection"` of shape `(dim, d)`, `"pole"` of
            shape `(d,)`. For a layer with several kernels the names begin with the kernel's:
            `"recurrent_kernel/projection"`.

    Raises:
        TypeError, ValueError: at once for an argument that is no layer, or not one regularizer of
            this package; when it is built, for a layer without kernel or embeddings and for
            kernels that do not fit the regularizer.

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

    def __init__(self, layer: keras.layers.Layer, regularizer: Any, **kwargs: Any) -> None:
        # The layer inside casts its inputs and weights; what learns here reads them as they are.
        if isinstance(layer, keras.layers.Layer):
            kwargs.setdefault("dtype", layer.variable_dtype)
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking
        self.regularizer = keras.regularizers.get(regularizer)
        energy, _ = _split(self.regularizer)
        initial = keras.initializers.Constant(energy.factor)
        wide = keras.backend.result_type("float32", keras.config.floatx())
        self.factor = self.add_state("factor", initial, (), wide)
        self._bound: dict[str, _Bound] = {}

    def add_state(
        self, name: str, initializer: Any, shape: tuple[int, ...], dtype: str
    ) -> keras.Variable:
        """Adds a variable that no optimizer moves."""
        variable = self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
            # Replicas compute the same from the same weights: any of them will do.
            aggregation="only_first_replica",
        )
        # As an attribute it is in the checkpoints of TensorFlow too.
        setattr(self, f"_{name}", variable)
        return variable

    @property
    def state(self) -> dict[str, keras.Variable]:
        alone = len(self._bound) == 1
        return {
            name if alone else f"{kernel}/{name}": variable
            for kernel, bound in self._bound.items()
            for name, variable in bound.state.items()
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not args:
            first = next(iter(inspect.signature(self.layer.call).parameters), None)
            args = (kwargs.pop(first),) if first in kwargs else args
        if not self.layer.built and self._needs_shapes():
            self._build_by_arguments(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _needs_shapes(self) -> bool:
        """Whether the layer is built from several inputs, as attention is."""
        parameters = inspect.signature(self.layer.build).parameters.values()
        return len([p for p in parameters if p.default is p.empty]) > 1

    def _build_by_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Builds the layer from all its inputs: Keras tells a wrapper of the first alone."""
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
                "A layer of several inputs is built by a call of its wrapper with all of them, or "
                f"before it is wrapped. Received: layer={self.layer}, input_shape={input_shape}"
            )
        super().build(input_shape)
        if not self._bound:
            self._bound = {kernel.name: _Bound(self, kernel) for kernel in kernels_of(self.layer)}
            self.attach()

    def attach(self) -> None:
        """Has the kernels regularized by this wrapper, whatever has taken its place since."""
        for bound in self._bound.values():
            bound.variable.regularizer = bound

    def call(self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if training:
            for bound in self._bound.values():
                bound.learn()
        return self.layer(inputs, *args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # From a call, not from the shape of the first input: there may be several.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer}
