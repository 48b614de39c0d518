"""Which regularizers survive saving: whether the loaded model has them too."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras

from keras_mhe.kernels._layer import is_built_in
from keras_mhe.kernels._model import has_graph
from keras_mhe.models._terms import term_name
from keras_mhe.regularizers._base import terms_of

# The name of a layer, the name of its argument, and the config of a regularizer.
_Key = tuple[str, str, str]


class SavedRegularizer(NamedTuple):
    """A regularizer that the config of one of the layers should contain as this argument."""

    layers: Sequence[Any]
    argument: str
    regularizer: Any


def _dicts(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a config, outer ones first."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _dicts(part)


def _keys_in_config(model: keras.Model) -> Counter[_Key]:
    """The keys of all regularizers in the config of a model."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception:
        # A user's `get_config` may raise anything: such a model cannot be saved as a whole.
        return Counter()
    return Counter(
        (str(part["name"]), name, repr(value))
        for part in _dicts(config)
        if "name" in part
        for name, value in part.items()
        if name.endswith("regularizer") and value
    )


def _keys_of(saved: SavedRegularizer) -> list[tuple[_Key, Any]]:
    try:
        config = repr(keras.regularizers.serialize(saved.regularizer))
    except Exception:
        # A user's own regularizer may have no config.
        return []
    return [((layer.name, saved.argument, config), layer) for layer in saved.layers]


def _serialized_layers(model: Any) -> Iterator[Any]:
    """The layers whose configs Keras itself includes in the config of a model."""
    for layer in model.layers if has_graph(model) and is_built_in(model) else ():
        yield layer
        yield from _serialized_layers(layer)


def _loads(term: Any) -> bool:
    """Whether Keras can create a term of a regularizer from its config."""
    if is_built_in(term):
        return True
    try:
        with warnings.catch_warnings():
            # Keras warns about a lambda, and then refuses to load it.
            warnings.simplefilter("ignore")
            keras.regularizers.get(keras.regularizers.serialize(term))
    except Exception:
        # The code is that of the user.
        return False
    return True


def reason_of_loss(regularizers: list[SavedRegularizer]) -> str:
    """Why those that do not survive saving are lost, and what helps."""
    for saved in regularizers:
        for term in terms_of(saved.regularizer):
            if not _loads(term):
                return (
                    f"{term_name(term)} has no `get_config`, or is not registered with "
                    "`keras.saving.register_keras_serializable`"
                )
    return "call `regularize` after loading"


def survives_saving(model: keras.Model, regularizers: list[SavedRegularizer]) -> list[bool]:
    """Whether a saved and loaded model has each of the regularizers."""
    if not all(_loads(term) for saved in regularizers for term in terms_of(saved.regularizer)):
        # Then the whole model does not load.
        return [False] * len(regularizers)
    serialized = set(map(id, _serialized_layers(model)))

    def certain(saved: SavedRegularizer) -> bool:
        given = any(getattr(x, saved.argument, None) is saved.regularizer for x in saved.layers)
        built_in = all(map(is_built_in, saved.layers))
        return given and id(saved.layers[0]) in serialized and built_in

    # Usually no config is needed. It takes long if TensorFlow is installed beside another backend,
    # because Keras imports it.
    if all(not saved.layers or certain(saved) for saved in regularizers):
        return [bool(saved.layers) for saved in regularizers]
    known = _keys_in_config(model)
    # Layers of different models may have the same name: the config must contain all of them.
    holders: dict[_Key, set[int]] = defaultdict(set)
    for saved in regularizers:
        for key, layer in _keys_of(saved):
            holders[key].add(id(layer))
    return [
        any(known[key] >= len(holders[key]) for key, _ in _keys_of(saved)) for saved in regularizers
    ]
