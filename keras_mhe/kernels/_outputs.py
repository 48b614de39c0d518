"""Finds the output layers of a model."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import layers

from keras_mhe._keras_internals import no_new_nodes, source_of
from keras_mhe.kernels._layer import ATTENTION, own_kernels, parts_of
from keras_mhe.kernels._model import find_kernels

# Layers before these give features, not class scores.
_NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)
_POOLINGS = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
)


def _gives_output(layer: Any) -> bool:
    """Whether each neuron of a layer gives one output; gates and attention heads do not."""
    if isinstance(layer, (layers.RNN, layers.Bidirectional, *ATTENTION)):
        return False
    if isinstance(layer, layers.Wrapper):
        return _gives_output(layer.layer)
    return bool(own_kernels(layer))


def _passes_through(operation: Any) -> bool:
    """Whether the output is the input after an activation, scaling, averaging or reshaping."""
    if not isinstance(operation, layers.Layer):
        return True
    return not operation.weights and not isinstance(operation, _NORMALIZATIONS + _POOLINGS)


def _tensors(structure: Any) -> list[Any]:
    return [t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)]


def _sources(tensors: Iterable[Any]) -> Iterator[Any]:
    """The layers with kernels that compute symbolic tensors, before layers without weights.

    If the code of a layer cannot be followed, the name of that layer takes their place.
    """
    for tensor in tensors:
        source = source_of(tensor)
        if source is None or isinstance(source[0], layers.InputLayer):
            continue
        operation, arguments, index = source
        if _passes_through(operation):
            # Stop where inputs are joined: otherwise, each block of a residual network would
            # count as an output.
            if len(arguments.keras_tensors) == 1:
                yield from _sources(arguments.keras_tensors)
        elif isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            yield from _sources([operation.outputs[index]])
        elif _gives_output(operation):
            yield operation
        elif isinstance(operation, layers.Wrapper) and getattr(operation.layer, "outputs", None):
            yield from _sources(_tensors(operation.layer.outputs))
        elif parts_of(operation) is None and find_kernels(operation):
            yield from _traced_sources(operation, arguments.args, arguments.kwargs)


def _traced_sources(layer: Any, args: Any, kwargs: Any) -> list[Any]:
    """The sources of the outputs of a subclassed layer or model.

    Calls it once with symbolic inputs.
    """

    def without_history(value: Any) -> Any:
        symbolic = isinstance(value, keras.KerasTensor)
        return keras.KerasTensor(value.shape, value.dtype) if symbolic else value

    args, kwargs = keras.tree.map_structure(without_history, (args, kwargs))
    # The call has no side effect: no weight changes, and no graph grows.
    with no_new_nodes(layer), keras.StatelessScope():
        try:
            return list(_sources(_tensors(layer.call(*args, **kwargs))))
        except Exception:
            # A user's code may raise any error when it receives tensors without values.
            return [layer.name]


def _last_layers(sequence: Iterable[Any]) -> Iterator[Any]:
    """The sources of the output of a Sequential model that has no shapes and weights yet."""
    for layer in reversed(list(sequence)):
        if isinstance(layer, keras.Sequential):
            yield from _last_layers(layer.layers)
            return
        if _gives_output(layer):
            yield layer
        if find_kernels(layer) or not _passes_through(layer):
            return


def _symbolic(shape: Any) -> Any:
    """A symbolic tensor of a shape, or a structure of them."""
    if isinstance(shape, dict):
        return {name: _symbolic(part) for name, part in shape.items()}
    if shape and isinstance(shape[0], (list, tuple)):
        return [_symbolic(part) for part in shape]
    return keras.KerasTensor(tuple(shape))


def _layers_and_names(model: keras.Model) -> list[Any]:
    if getattr(model, "outputs", None):
        return list(_sources(_tensors(model.outputs)))
    if isinstance(model, keras.Sequential):
        return list(_last_layers(model.layers))
    config = model.get_build_config()
    if "input_shape" in config:
        return _traced_sources(model, (_symbolic(config["input_shape"]),), {})
    shapes = config.get("shapes_dict", {})
    inputs = {name.removesuffix("_shape"): _symbolic(shape) for name, shape in shapes.items()}
    return _traced_sources(model, (), inputs)


def output_layers(model: keras.Model) -> tuple[list[keras.layers.Layer], str]:
    """The layers whose neurons give the outputs of a model: class vectors, if it classifies.

    The search starts at each output and goes back to a layer with a kernel. It passes activations,
    dropout, reshaping, global pooling and other operations with one input and no weights. It stops
    at normalization, local pooling and sums. A subclassed model is called once with symbolic
    inputs.

    Returns:
        The layers, and the names of layers or models whose code does not accept symbolic inputs:
        their output layers are unknown.
    """
    found = _layers_and_names(model)
    unknown = dict.fromkeys(part for part in found if isinstance(part, str))
    return [part for part in found if not isinstance(part, str)], ", ".join(unknown)
