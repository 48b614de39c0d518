"""Finds the kernels of a model, and those that `where` selects."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from keras_mhe._keras_internals import nested_layers
from keras_mhe.kernels._layer import Kernel, is_built_in, own_kernels, parts_of

# The `where` argument: a function of a layer, names of layers, or None for all layers.
LayerFilter: TypeAlias = Callable[[keras.layers.Layer], bool] | str | Sequence[str] | None


class ModelKernel(NamedTuple):
    """A kernel in a model.

    Attributes:
        path: the name of the layer after the names of the models and layers that contain it, joined
            by slashes.
        name: name of the kernel within its layer.
        owners: the layer, and the layers inside it (wrapped ones, cells, projections) down to the
            one that holds the kernel itself.
        kernel: the `Kernel`.
        axes_named: whether the caller named the axes of its neurons, which replace those of the
            layer.
    """

    path: str
    name: str
    owners: tuple[keras.layers.Layer, ...]
    kernel: Kernel
    axes_named: bool = False

    def belongs_to(self, layers: Iterable[keras.layers.Layer]) -> bool:
        """Whether one of the layers holds the kernel."""
        return any(owner is layer for owner in self.owners for layer in layers)

    @property
    def labels(self) -> set[str]:
        """The names by which `where` and `axes` can select the kernel."""
        return {self.path, *self.path.split("/"), *(owner.name for owner in self.owners)}


def _within(
    layer: Any, path: str, prefix: str, owners: tuple[Any, ...], seen: set[int]
) -> Iterator[ModelKernel]:
    """The kernels of a layer and of its sublayers, without those already seen."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    owners = (*owners, layer)
    parts = parts_of(layer)
    for name, part in (parts or {}).items():
        inner = f"{prefix}{name}/" if name else prefix
        yield from _within(part, path, inner, owners, seen)
    for kernel in own_kernels(layer) if parts is None else ():
        if kernel.variable is None or id(kernel.variable) not in seen:
            seen.add(id(kernel.variable))
            yield ModelKernel(path, prefix + kernel.name, owners, kernel)
    for child in nested_layers(layer, direct=True):
        yield from _within(child, f"{path}/{child.name}".lstrip("/"), "", (), seen)


def find_kernels(model: keras.layers.Layer) -> list[ModelKernel]:
    """Every kernel of a model once, even if several layers or calls share it.

    Args:
        model: a model, or any layer.

    Returns:
        A list of `ModelKernel`; empty for a model without kernels.

    Examples:
        >>> import keras
        >>> from keras_mhe import hyperspherical_energy
        >>> from keras_mhe.kernels import find_kernels
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
        >>> [found] = find_kernels(model)
        >>> found.path, found.kernel.neuron_axis
        ('head', (-1,))
        >>> kernel = found.kernel
        >>> energy = hyperspherical_energy(
        ...     kernel.variable, neuron_axis=kernel.neuron_axis, groups=kernel.groups
        ... )
    """
    return list(_within(model, "", "", (), set()))


def other_weights(model: keras.Model, kernels: list[ModelKernel]) -> list[tuple[str, Any]]:
    """Trainable weights of two or more dimensions that are no kernels, each with its path."""
    known = {id(found.kernel.variable) for found in kernels}
    for found in kernels:
        known.update(map(id, found.kernel.factors))
    return [
        (weight.path.rpartition("/")[0].removeprefix(f"{model.name}/"), weight)
        for weight in model.trainable_weights
        if id(weight) not in known
        and weight.name != "bias"
        and sum(size > 1 for size in weight.shape) > 1
    ]


def has_graph(model: Any) -> bool:
    """Whether a model is a functional or Sequential model, whose layers Keras can replace."""
    if isinstance(model, keras.Sequential):
        return True
    return isinstance(model, keras.Model) and getattr(model, "outputs", None) is not None


def replaceable_layers(model: Any) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it that Keras can replace."""
    for layer in model.layers if has_graph(model) else ():
        yield layer
        yield from replaceable_layers(layer)


def check_model(model: Any) -> None:
    """Raises if the argument is no model, or has layers whose kernels are still unknown."""
    if inspect.isclass(model) or not isinstance(model, keras.Model):
        hint = ""
        if isinstance(model, keras.layers.Layer):
            hint = " (for a single layer use `keras_mhe.HypersphericalRegularization`)"
        elif isinstance(model, (str, os.PathLike)):
            hint = " (load a file with `keras.saving.load_model` first)"
        raise TypeError(
            f"Invalid value for argument `model`. Expected a `keras.Model`{hint}. "
            f"Received: model={model!r}"
        )
    if not model.built and not isinstance(model, keras.Sequential):
        raise ValueError(
            "The model is not built, so its kernels are unknown. Call it on a batch of its "
            f"inputs first, or call `model.build(input_shape)`. Received: model={model!r}"
        )
    for layer in () if model.built else nested_layers(model):
        if not layer.built and not is_built_in(layer):
            raise ValueError(
                f"The layer {layer.name} is not built, so its kernels are unknown. Build the "
                f"model first with `model.build(input_shape)`. Received: model={model!r}"
            )


def check_names(names: Iterable[str], kernels: list[ModelKernel], argument: str) -> None:
    """Raises if one of the names is that of no layer with a kernel."""
    known = set().union(*(found.labels for found in kernels))
    for name in names:
        if name not in known:
            paths = sorted({found.path for found in kernels if found.path})
            raise ValueError(
                f"Argument `{argument}` must name layers with a kernel. The model has "
                f"{', '.join(paths)}. Received: {name!r}"
            )


def layer_predicate(
    where: LayerFilter, kernels: list[ModelKernel]
) -> Callable[[ModelKernel], bool]:
    """A function that says whether `where` selects a kernel of the list."""
    if where is None:
        return lambda found: True
    if callable(where) and not isinstance(where, keras.layers.Layer):
        return lambda found: any(where(owner) for owner in found.owners)
    names: Any = [where] if isinstance(where, str) else where
    listed = isinstance(names, Iterable) and not isinstance(names, keras.layers.Layer)
    if not listed or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "Invalid value for argument `where`. Expected a function of a layer, names of layers, "
            f"or None. Received: where={where!r}"
        )
    check_names(names, kernels, "where")
    return lambda found: any(name in found.labels for name in names)
