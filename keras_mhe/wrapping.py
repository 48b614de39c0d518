"""A model of the same layers, some of them in wrappers or out of them."""

import contextlib
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


@contextlib.contextmanager
def _not_compiled(model: Any) -> Iterator[None]:
    """Lets Keras clone a model without compiling the clone, which not every loss survives."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _compiled_as(new: keras.Model, model: keras.Model) -> str:
    """Compiles one model as another, optimizer's memory included; says what is lacking."""
    if not model.compiled:
        return ""
    try:
        new.compile_from_config(model.get_compile_config())
    except Exception:
        return " Compile it: its loss, metrics or optimizer have no config to be copied by."
    old, own = model.optimizer, new.optimizer
    if old is None or not old.built:
        return ""
    if not own.built:
        own.build(new.trainable_variables)
    pairs = list(zip(old.variables, own.variables, strict=False))
    if len(old.variables) != len(own.variables) or any(a.shape != b.shape for a, b in pairs):
        return " Its optimizer starts afresh."
    for theirs, mine in pairs:
        # A copy: a training step on JAX gives its arrays away.
        mine.assign(keras.ops.copy(theirs))
    return ""


def replaced(model: keras.Model, replacement: Callable[[Any], Any]) -> tuple[keras.Model, str]:
    """The model with another layer in place of each for which there is one, the rest as it is.

    Layers and so weights are those of the given model. If that is compiled, so is the new one,
    with what its optimizer has gathered. Where there is nothing to replace it is the given model.

    Args:
        model: a functional or Sequential model.
        replacement: gives the layer to put in place of a layer, or that layer itself.

    Returns:
        The new model, and what it lacks that the given one has, as a sentence after a space.
    """
    known: dict[int, Any] = {}

    def clone(part: Any) -> Any:
        if any(replacement(layer) is not layer for layer in layers_in_graph(part)):
            with _not_compiled(part):
                new = keras.models.clone_model(part, clone_function=once)
            if type(new) is not type(part):
                raise ValueError(
                    "A model of a class of its own cannot be made anew with wrappers: wrap its "
                    "layers where they are made, `keras_mhe.HypersphericalRegularization(layer, "
                    f"...)`. Received: model={part!r} of {type(part)}"
                )
            return new
        return replacement(part) if part is not model else part

    def once(part: Any) -> Any:
        # A layer that is called twice is replaced once.
        if id(part) not in known:
            known[id(part)] = clone(part)
        return known[id(part)]

    with scope_of(model):
        new = clone(model)
        return new, "" if new is model else _compiled_as(new, model)
