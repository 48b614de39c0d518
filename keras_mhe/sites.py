"""Every kernel of a model, and where in the model it is."""

from collections.abc import Iterable, Iterator
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

    def belongs_to(self, layers: Iterable[Any]) -> bool:
        """Whether one of the layers holds the kernel."""
        return any(owner is layer for owner in self.owners for layer in layers)


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


def other_weights(model: Any, sites: list[Site]) -> list[tuple[str, Any]]:
    """The trainable weights that are more than vectors, yet no kernels, and paths to them."""
    known = {id(site.kernel.variable) for site in sites}
    for site in sites:
        known.update(map(id, site.kernel.factors))
    return [
        (weight.path.rpartition("/")[0].removeprefix(f"{model.name}/"), weight)
        for weight in model.trainable_weights
        if id(weight) not in known
        and weight.name != "bias"
        and sum(size > 1 for size in weight.shape) > 1
    ]
