"""Every kernel of a model, and where in the model it is."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_mhe.kernels import Kernel, own_kernels, parts_of


class Site(NamedTuple):
    """A kernel in a model.

    Attributes:
        path: names of the models and layers that lead to the layer, joined by slashes.
        name: which of the layer's kernels it is.
        owners: the layer, and those inside it (wrapped ones, cells, projections) down to the one
            that holds the kernel itself.
        kernel: the kernel.
    """

    path: str
    name: str
    owners: tuple[Any, ...]
    kernel: Kernel


def _within(
    layer: Any, path: str, prefix: str, owners: tuple[Any, ...], seen: set[int]
) -> Iterator[Site]:
    """The kernels of a layer and of all in it that have not been seen; see `Site`."""
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
            yield Site(path, prefix + kernel.name, owners, kernel)
    for child in layer._flatten_layers(include_self=False, recursive=False):
        yield from _within(child, f"{path}/{child.name}".lstrip("/"), "", (), seen)


def sites_of(model: Any) -> list[Site]:
    """Every kernel of a model once, however often its layer is called or the kernel used."""
    return list(_within(model, "", "", (), set()))
