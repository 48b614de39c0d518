"""A model of the same layers, some of them in wrappers or out of them."""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_mhe._backend import scope_of


def has_graph(model: Any) -> bool:
    """Whether a model is known as a graph of layers, or a list of them."""
    if isinstance(model, keras.Sequential):
        return True
    return isinstance(model, keras.Model) and getattr(model, "outputs", None) is not None


def layers_in_graph(model: Any) -> Iterator[Any]:
    """The layers of a model, and of the models in it, that can be replaced."""
    for layer in model.layers if has_graph(model) else ():
        yield layer
        yield from layers_in_graph(layer)


def replaced(model: keras.Model, replacement: Callable[[Any], Any]) -> keras.Model:
    """The model with another layer in place of each for which there is one, the rest as it is.

    Layers and so weights are those of the given model. If that is compiled, so is the new one,
    with what its optimizer has gathered.

    Args:
        model: a functional or Sequential model.
        replacement: gives the layer to put in place of a layer, or that layer itself.
    """
    known: dict[int, Any] = {}

    def clone(part: Any) -> Any:
        inside = list(layers_in_graph(part))
        if any(replacement(layer) is not layer for layer in inside):
            return keras.models.clone_model(part, clone_function=once)
        return replacement(part) if part is not model else part

    def once(part: Any) -> Any:
        # A layer that is called twice is replaced once.
        if id(part) not in known:
            known[id(part)] = clone(part)
        return known[id(part)]

    with scope_of(model):
        new = clone(model)
        if new is not model and model.compiled and model.optimizer is not None:
            if not new.compiled:
                new.compile_from_config(model.get_compile_config())
            if model.optimizer.built:
                new.optimizer.build(new.trainable_variables)
                for old, own in zip(
                    model.optimizer.variables, new.optimizer.variables, strict=True
                ):
                    own.assign(old)
    return new
