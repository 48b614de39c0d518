"""Which regularizers a saved model brings back."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a config, outer ones first."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _parts(part)


def saved_regularizers(model: keras.Model) -> set[tuple[str, str, str]]:
    """The regularizers in a model's config: name of the layer, of its argument, and the config."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except Exception:
        # Whatever a user's own `get_config` raises: such a model is not saved as a whole.
        return set()
    return {
        (str(part["name"]), name, repr(value))
        for part in _parts(config)
        if "name" in part
        for name, value in part.items()
        if name.endswith("regularizer") and value
    }


def is_saved(
    layers: Sequence[Any], argument: str, regularizer: Any, known: set[tuple[str, str, str]]
) -> bool:
    """Whether one of the layers says in its config that this is its regularizer."""
    config = repr(keras.regularizers.serialize(regularizer))
    return any((layer.name, argument, config) in known for layer in layers)
