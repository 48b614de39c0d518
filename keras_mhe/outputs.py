"""Which layers of a model give its outputs."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import layers

from keras_mhe.kernels import ATTENTION, own_kernels, parts_of
from keras_mhe.sites import sites_of

# Behind these are features, not class vectors.
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


def _is_output(layer: Any) -> bool:
    """Whether a layer's own neurons give what it puts out, as gates and heads do not."""
    if isinstance(layer, (layers.RNN, layers.Bidirectional, *ATTENTION)):
        return False
    if isinstance(layer, layers.Wrapper):
        return _is_output(layer.layer)
    return bool(own_kernels(layer))


def _lets_through(operation: Any) -> bool:
    """Whether what comes out of it is what came in, squashed, scaled, averaged or reshaped."""
    if not isinstance(operation, layers.Layer):
        return True
    return not operation.weights and not isinstance(operation, _NORMALIZATIONS + _POOLINGS)


def _tensors(structure: Any) -> list[Any]:
    return [t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)]


def _behind(tensors: Iterable[Any]) -> Iterator[Any]:
    """Layers with kernels that symbolic tensors come from, past what only reshapes or squashes.

    Where a layer's code cannot be followed its name comes in place of layers.
    """
    for tensor in tensors:
        operation, node, index = getattr(tensor, "_keras_history", (None, 0, 0))
        if operation is None or isinstance(operation, layers.InputLayer):
            continue
        arguments = operation._inbound_nodes[node].arguments
        if _lets_through(operation):
            # Not what joins several: in a residual network every block would be an output.
            if len(arguments.keras_tensors) == 1:
                yield from _behind(arguments.keras_tensors)
        elif isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            yield from _behind([operation.outputs[index]])
        elif _is_output(operation):
            yield operation
        elif isinstance(operation, layers.Wrapper) and getattr(operation.layer, "outputs", None):
            yield from _behind(_tensors(operation.layer.outputs))
        elif parts_of(operation) is None and sites_of(operation):
            yield from _traced(operation, arguments.args, arguments.kwargs)


@contextlib.contextmanager
def _untouched(layer: Any) -> Iterator[None]:
    """Lets a layer be called without a trace of it: no weight moves, no graph grows."""
    parts = layer._flatten_layers()
    lists = [nodes for part in parts for nodes in (part._inbound_nodes, part._outbound_nodes)]
    sizes = [len(nodes) for nodes in lists]
    try:
        with keras.StatelessScope():
            yield
    finally:
        for nodes, size in zip(lists, sizes, strict=True):
            del nodes[size:]


def _traced(layer: Any, args: Any, kwargs: Any) -> list[Any]:
    """The same for a layer or model that says in Python what it does with its inputs."""

    def fresh(value: Any) -> Any:
        symbolic = isinstance(value, keras.KerasTensor)
        return keras.KerasTensor(value.shape, value.dtype) if symbolic else value

    args, kwargs = keras.tree.map_structure(fresh, (args, kwargs))
    with _untouched(layer):
        try:
            return list(_behind(_tensors(layer.call(*args, **kwargs))))
        except Exception:
            # Whatever a user's own code raises when it meets tensors without values.
            return [layer.name]


def _last_of(sequence: Iterable[Any]) -> Iterator[Any]:
    """The same for the layers of a Sequential that has no shapes yet, and no weights."""
    for layer in reversed(list(sequence)):
        if isinstance(layer, keras.Sequential):
            yield from _last_of(layer.layers)
            return
        if _is_output(layer):
            yield layer
        if sites_of(layer) or not _lets_through(layer):
            return


def _symbol(shape: Any) -> Any:
    """A symbolic tensor of a shape, or a structure of them."""
    if isinstance(shape, dict):
        return {name: _symbol(part) for name, part in shape.items()}
    if shape and isinstance(shape[0], (list, tuple)):
        return [_symbol(part) for part in shape]
    return keras.KerasTensor(tuple(shape))


def _found(model: keras.Model) -> list[Any]:
    if getattr(model, "outputs", None):
        return list(_behind(_tensors(model.outputs)))
    if isinstance(model, keras.Sequential):
        return list(_last_of(model.layers))
    config = model.get_build_config()
    if "input_shape" in config:
        return _traced(model, (_symbol(config["input_shape"]),), {})
    shapes = config.get("shapes_dict", {})
    return _traced(model, (), {n.removesuffix("_shape"): _symbol(s) for n, s in shapes.items()})


def output_layers(model: keras.Model) -> tuple[list[Any], str]:
    """The layers whose neurons give the outputs of a model: class vectors, if it classifies.

    Each output is followed back to a layer with a kernel, past activations, dropout, reshaping,
    global pooling and whatever else has one input and no weights, but not past normalization,
    local pooling, or sums. What has no graph, but code, is called once with symbolic inputs.

    Returns:
        The layers, and the names of layers or models whose code does not take symbolic inputs, so
        that nobody knows.
    """
    found = _found(model)
    unknown = dict.fromkeys(part for part in found if isinstance(part, str))
    return [part for part in found if not isinstance(part, str)], ", ".join(unknown)
