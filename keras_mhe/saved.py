"""Which regularizers a saved model brings back."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

from keras_mhe.kernels import is_built_in
from keras_mhe.wrapping import has_graph


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a config, outer ones first."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _parts(part)


_Key = tuple[str, str, str]


class Claim(NamedTuple):
    """That one of the layers, by its argument of this name, says how a kernel is regularized."""

    layers: Sequence[Any]
    argument: str
    regularizer: Any


def _in_config(model: keras.Model) -> Counter[_Key]:
    """The regularizers in a model's config: name of the layer, of its argument, and the config."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception:
        # Whatever a user's own `get_config` raises: such a model is not saved as a whole.
        return Counter()
    return Counter(
        (str(part["name"]), name, repr(value))
        for part in _parts(config)
        if "name" in part
        for name, value in part.items()
        if name.endswith("regularizer") and value
    )


def _keys(claim: Claim) -> list[tuple[_Key, Any]]:
    try:
        config = repr(keras.regularizers.serialize(claim.regularizer))
    except Exception:
        # A regularizer of a user's own that has no config.
        return []
    return [((layer.name, claim.argument, config), layer) for layer in claim.layers]


def _listed(model: Any) -> Iterator[Any]:
    """The layers that Keras itself writes into the config of a model, each with its own."""
    for layer in model.layers if has_graph(model) and is_built_in(model) else ():
        yield layer
        yield from _listed(layer)


def are_saved(model: keras.Model, claims: list[Claim]) -> list[bool]:
    """Whether a saved model brings regularizers back, for each of the claims about them."""
    listed = set(map(id, _listed(model)))

    def plain(claim: Claim) -> bool:
        given = any(getattr(x, claim.argument, None) is claim.regularizer for x in claim.layers)
        return given and id(claim.layers[0]) in listed and all(map(is_built_in, claim.layers))

    # Mostly there is nothing to look up; a config takes Keras long where TensorFlow is installed
    # beside another backend, as it is imported for that.
    if all(not claim.layers or plain(claim) for claim in claims):
        return [bool(claim.layers) for claim in claims]
    known = _in_config(model)
    # Layers of one name in different models: there must be as many in the config.
    holders: dict[_Key, set[int]] = defaultdict(set)
    for claim in claims:
        for key, layer in _keys(claim):
            holders[key].add(id(layer))
    return [any(known[key] >= len(holders[key]) for key, _ in _keys(claim)) for claim in claims]
