"""Builds a second model from the same layers, with some of them wrapped or unwrapped."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_mhe._keras_internals import not_compiled
from keras_mhe.kernels._model import replaceable_layers


def strategy_scope(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """The scope that creates new variables on the same devices as the variables of a model."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def _compile_like(new: keras.Model, model: keras.Model) -> str:
    """Compiles a new model like a given one, with the optimizer's state.

    Returns:
        A warning that starts with a space, or "".
    """
    if not model.compiled:
        return ""
    try:
        new.compile_from_config(model.get_compile_config())
    except Exception:
        return " Compile it: its loss, metrics or optimizer have no config to copy."
    old, own = model.optimizer, new.optimizer
    if old is None or not old.built:
        return ""
    if not own.built:
        own.build(new.trainable_variables)
    pairs = list(zip(old.variables, own.variables, strict=False))
    if len(old.variables) != len(own.variables) or any(a.shape != b.shape for a, b in pairs):
        return " Its optimizer starts without a state."
    for theirs, mine in pairs:
        # A copy: a training step on JAX deletes the arrays that it replaces.
        mine.assign(keras.ops.copy(theirs))
    return ""


def rebuild_with(model: keras.Model, replacement: Callable[[Any], Any]) -> tuple[keras.Model, str]:
    """A model with some layers replaced and everything else unchanged.

    Both models share layers and weights. If the given model is compiled, the new one is compiled
    in the same way, with the state of its optimizer. If nothing is replaced, the result is the
    given model.

    Args:
        model: a functional or Sequential model.
        replacement: returns the replacement of a layer, or that layer itself.

    Returns:
        The new model, and a warning that starts with a space, or "".
    """
    known: dict[int, Any] = {}

    def clone(part: Any) -> Any:
        if any(replacement(layer) is not layer for layer in replaceable_layers(part)):
            with not_compiled(part):
                new = keras.models.clone_model(part, clone_function=clone_once)
            if type(new) is not type(part):
                raise ValueError(
                    "Keras cannot clone a model of your own class with wrapped layers. Wrap its "
                    "layers where they are created, `keras_mhe.HypersphericalRegularization(layer, "
                    f"...)`. Received: model={part!r} of {type(part)}"
                )
            return new
        return replacement(part) if part is not model else part

    def clone_once(part: Any) -> Any:
        # A layer that is called twice is replaced once.
        if id(part) not in known:
            known[id(part)] = clone(part)
        return known[id(part)]

    with strategy_scope(model):
        new = clone(model)
        return new, "" if new is model else _compile_like(new, model)
