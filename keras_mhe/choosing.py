"""Which model, and which of its layers, a call is about."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_mhe.kernels import is_built_in
from keras_mhe.sites import Site

Where = Callable[[keras.layers.Layer], bool] | str | Sequence[str] | None


def check_model(model: Any) -> None:
    """Says what is wrong with what is no model, or has kernels that nobody knows yet."""
    if inspect.isclass(model) or not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid value for argument `model`. Expected a `keras.Model` (for a single layer use "
            f"`keras_mhe.HypersphericalRegularization`). Received: model={model!r}"
        )
    if not model.built and not isinstance(model, keras.Sequential):
        raise ValueError(
            "The model is not built, so its kernels are not known. Call it on a batch of its "
            f"inputs first, or `model.build(input_shape)`. Received: model={model!r}"
        )
    for layer in () if model.built else model._flatten_layers(include_self=False):
        if not layer.built and not is_built_in(layer):
            raise ValueError(
                f"The layer {layer.name} is not built, so its kernels are not known. Build the "
                f"model first, `model.build(input_shape)`. Received: model={model!r}"
            )


def chosen(where: Where, sites: list[Site]) -> Callable[[Site], bool]:
    """Tells whether a kernel is in a layer that `where` asks for."""
    if where is None:
        return lambda site: True
    if callable(where) and not isinstance(where, keras.layers.Layer):
        return lambda site: any(where(owner) for owner in site.owners)
    names: Any = [where] if isinstance(where, str) else where
    listed = isinstance(names, Iterable) and not isinstance(names, keras.layers.Layer)
    if not listed or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "Invalid value for argument `where`. Expected a function of a layer, names of layers, "
            f"or None. Received: where={where!r}"
        )

    def named(site: Site) -> set[str]:
        return {site.path, *site.path.split("/"), *(owner.name for owner in site.owners)}

    known = set().union(*map(named, sites))
    for name in names:
        if name not in known:
            raise ValueError(
                f"Argument `where` names no layer with a kernel. The model has "
                f"{', '.join(sorted({site.path for site in sites}))}. Received: {name!r}"
            )
    return lambda site: any(name in named(site) for name in names)
