"""The layer wrapper: finds the neurons of a layer, and stores factor and state of a regularizer."""

import inspect
from typing import Any

import keras

from keras_mhe._backend import outside_torch_graphs
from keras_mhe._typing import Shape, Tensor
from keras_mhe.kernels._layer import kernels_of
from keras_mhe.layers._factor import FactorVariable
from keras_mhe.layers._kernel_regularizer import KernelRegularizer, split_energy


@keras.saving.register_keras_serializable(package="keras_mhe")
class HypersphericalRegularization(FactorVariable, keras.layers.Wrapper):
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

    If the layer has LoRA, its effective kernel is regularized. If LoRA is enabled after the wrapper
    was built, this begins with the next call. A quantized kernel has no energy; training then
    warns once. Such models can be saved, loaded and cloned.

    Args:
        layer: a layer with a kernel or embeddings, built or not.
        regularizer: a regularizer of this package, or its sum with regularizers of Keras. If its
            `neuron_axis` is None, the layer determines which axes index neurons. Filters of
            DepthwiseConv then compete only within their channel.
        **kwargs: arguments of `keras.layers.Layer`. Without `name`, the wrapper has the name of the
            layer, unless this layer is such a wrapper. A model with the same layer inside and
            outside of a wrapper needs two names.

    Attributes:
        factor: scalar variable, the weight of the energy. Its initial value is the factor of the
            regularizer. `FactorSchedule` changes it during training, by epoch or by step. On JAX,
            your own callback that assigns to it between batches must reach it through `self.model`,
            as for any variable of Keras: Keras then first collects the state of the step.
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
        if isinstance(layer, keras.layers.Layer):
            # The inner layer casts inputs and weights. The state is computed from uncast weights.
            kwargs.setdefault("dtype", layer.variable_dtype)
            # Two wrappers of one name would have variables of one path.
            if not isinstance(layer, HypersphericalRegularization):
                kwargs["name"] = kwargs.get("name") or layer.name
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking
        self.regularizer = keras.regularizers.get(regularizer)
        energy, _ = split_energy(self.regularizer)
        initial = keras.initializers.Constant(energy.factor)
        wide = keras.backend.result_type("float32", keras.config.floatx())
        # The factor of the regularizer has no effect any more.
        energy.used = True
        self._factor = self.add_state("factor", initial, (), wide)
        self._kernel_regularizers: dict[str, KernelRegularizer] = {}

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

    def _sorted(self, variables: list[keras.Variable], own_first: bool) -> list[keras.Variable]:
        inner = set(map(id, self.layer.variables))
        return sorted(variables, key=lambda variable: (id(variable) in inner) == own_first)

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights of the layer, then the factor and the learned state."""
        return self._sorted(super().weights, own_first=False)

    @property
    def variables(self) -> list[keras.Variable]:
        """As `weights`, with the variables of the layer that are no weights."""
        return self._sorted(super().variables, own_first=False)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """The factor and the learned state, then the weights of the layer."""
        # The order in HDF5 files of Keras 2's format, which older versions of this class wrote.
        return self._sorted(super().non_trainable_weights, own_first=True)

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
        self._follow_layer()
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
                kernel.name: KernelRegularizer(self, kernel) for kernel in kernels_of(self.layer)
            }
            self.attach()

    def attach(self) -> None:
        """Makes this wrapper regularize its kernels, even if another one has replaced it."""
        for regularizer in self._kernel_regularizers.values():
            regularizer.attach()

    @outside_torch_graphs
    def _follow_layer(self) -> None:
        for regularizer in self._kernel_regularizers.values():
            regularizer.follow_layer()

    def call(
        self, inputs: Tensor, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Tensor:
        if training:
            for regularizer in self._kernel_regularizers.values():
                regularizer.warn_without_weights()
                regularizer.update_state()
        return self.layer(inputs, *args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # Computed by a call: the shape of the first input is not enough for several inputs.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor) -> Tensor:
        return self.layer.compute_mask(inputs, previous_mask)

    def load_own_variables(self, store: Any) -> None:
        # Keras finds layers in a file by class and position, so it does not find the bare layer.
        if not store.keys():
            raise ValueError(
                f"The file has no state of the wrapper {self.name}: it is of a model without this "
                "wrapper. Load the file into the model without wrappers, and then wrap its layers "
                "or call `keras_mhe.regularize`."
            )
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer}
