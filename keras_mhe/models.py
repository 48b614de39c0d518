"""Whole models: every kernel of a model that exists is given an energy, or loses it."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_mhe._backend import scope_of
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.lora import low_rank_factors
from keras_mhe.outputs import output_layers
from keras_mhe.placing import is_energy, place, regularizer_of, total
from keras_mhe.planning import APART, WRAPPED, Plan, Where, all_or_none, planned
from keras_mhe.regularizers import MHE, HalfSpaceMHE, HypersphericalRegularizer, terms_of
from keras_mhe.saved import is_saved, saved_regularizers
from keras_mhe.sites import Site, sites_of
from keras_mhe.table import Row, Table
from keras_mhe.wrapping import has_graph, layers_in_graph, replaced


def _check_model(model: Any) -> None:
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
    for layer in model._flatten_layers(include_self=False):
        own = type(layer).__module__.partition(".")[0] not in ("keras", "keras_mhe")
        if own and not layer.built:
            raise ValueError(
                f"The layer {layer.name} is not built, so its kernels are not known. Build the "
                f"model first, `model.build(input_shape)`. Received: model={model!r}"
            )


def _check_regularizer(regularizer: Any, name: str) -> Any:
    if inspect.isclass(regularizer):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected an instance, "
            f"`{regularizer.__name__}()`, not the class. Received: {name}={regularizer!r}"
        )
    regularizer = keras.regularizers.get(regularizer)
    energies = [
        term for term in terms_of(regularizer) if isinstance(term, HypersphericalRegularizer)
    ]
    if regularizer is not None and not energies:
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected a regularizer of keras_mhe, its sum "
            f"with others of Keras, or None. Received: {name}={regularizer!r}"
        )
    if len(energies) > 1 and any(energy.learner is not None for energy in energies):
        raise ValueError(
            f"Argument `{name}` may hold one energy if it learns; for a second one call "
            f"`regularize` on the `.model` of the first. Received: {name}={regularizer!r}"
        )
    return regularizer


def _chosen(where: Where, sites: list[Site]) -> Callable[[Site], bool]:
    """Tells whether a kernel is in a layer that `where` asks for."""
    if where is None:
        return lambda site: True
    if callable(where):
        return lambda site: any(where(owner) for owner in site.owners)
    names: Any = [where] if isinstance(where, str) else where
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "Invalid value for argument `where`. Expected a function of a layer, names of layers, "
            f"or None. Received: where={where!r}"
        )

    def named(site: Site) -> set[str]:
        return {site.path, *(owner.name for owner in site.owners)}

    known = set().union(*map(named, sites))
    for name in names:
        if name not in known:
            raise ValueError(
                f"Argument `where` names no layer with a kernel. The model has "
                f"{', '.join(sorted({site.path for site in sites}))}. Received: {name!r}"
            )
    return lambda site: any(name in named(site) for name in names)


def _wrappers(plans: list[Plan]) -> dict[int, HypersphericalRegularization]:
    """The wrappers of layers whose energies learn, by the id of the layer."""
    wrappers = {}
    for plan in plans:
        owner = plan.site.owners[0]
        if plan.learns and id(owner) not in wrappers:
            wrapper = HypersphericalRegularization(owner, total(plan.new), name=owner.name)
            wrappers[id(owner)] = wrapper
    return wrappers


def _other_weights(model: keras.Model, sites: list[Site]) -> list[Row]:
    """Rows of the trainable weights that are more than vectors, yet no kernels."""
    known = {id(site.kernel.variable) for site in sites}
    for site in sites:
        known.update(map(id, low_rank_factors(site.kernel.layer, site.kernel.name)))
    return [
        Row(
            layer=weight.path.rpartition("/")[0],
            kernel=weight.name,
            shape=tuple(weight.shape),
            role="skipped",
            note=APART if weight.name == "depthwise_kernel" else "its neurons are not known",
        )
        for weight in model.trainable_weights
        if id(weight) not in known
        and weight.name != "bias"
        and sum(size > 1 for size in weight.shape) > 1
    ]


def _forget_compiled(model: keras.Model) -> None:
    """Has Keras compile the training step anew, which it would not without being told."""
    for part in model._flatten_layers():
        if isinstance(part, keras.Model):
            part.train_function = part.test_function = None


def _row(plan: Plan, saved: set[tuple[str, str, str]]) -> Row:
    site, regularizer = plan.site, total(plan.new + plan.kept)
    variable, note = site.kernel.variable, plan.note
    if low_rank_factors(site.kernel.layer, site.kernel.name):
        # The config has it, and on loading Keras puts it on both factors.
        kept = False
    elif plan.learns:
        # The wrapper that has the layer's name.
        kept = is_saved(site.owners[:1], "regularizer", total(plan.new), saved)
    else:
        kept = is_saved(site.owners, site.kernel.argument, regularizer, saved)
    if plan.new and not kept:
        note = "; ".join([*filter(None, [note]), "not saved: call `regularize` after loading"])
    groups, dimension, neurons = plan.extents or (None, None, None)
    return Row(
        layer=site.path,
        kernel=site.name,
        shape=None if variable is None else tuple(variable.shape),
        groups=groups,
        dimension=dimension,
        neurons=neurons,
        role=plan.role,
        regularizer=regularizer if plan.new else None,
        saved=bool(plan.new) and kept,
        note=note,
    )


def regularize(
    model: keras.Model,
    hidden: keras.Regularizer | None = HalfSpaceMHE(1.0),  # noqa: B008
    output: keras.Regularizer | None = MHE(10.0),  # noqa: B008
    where: Where = None,
) -> Table:
    """Gives every kernel of a finished model an energy, in place.

    `loss += sum over kernels of factor * energy(neurons)`, once for a kernel however often its
    layer is called. Axes and groups of neurons are those of each layer, as in
    `HypersphericalRegularization`. Regularizers of Keras that a kernel has stay beside the new
    one; an energy of this package that it has gives way to it, so that a second call changes
    factors and does not add up. Weights, optimizer and `compile` are left alone, and the next
    `fit` counts the energies. Frozen kernels add nothing while they are frozen.

    A kernel with LoRA is regularized by what it is in effect. Kernels of DepthwiseConv are left
    alone unless `where` asks for their layer; so are quantized ones, and single neurons.

    Regularizers that learn (`CoMHE(projection="angle")`, `MHP()`, ...) need a layer around the
    layer. They leave the given model's graph as it is and return, in `.model`, another of the
    same layers and weights, with wrappers: train that one.

    Args:
        model: functional, Sequential or subclassed; subclassed ones have been built. A
            Sequential that is not built gets its energies when it is.
        hidden: regularizer of this package for kernels of hidden layers, or its sum with others
            of Keras; None leaves them alone.
        output: the same for the layers that the model's outputs come from, past activations,
            flattening, reshaping and whatever has one input and no weights.
        where: which layers: a function from a layer to True or False, or names of layers. None is
            all of them.

    Returns:
        A `Table` that prints: `rows` says of each kernel what was done or why nothing was, and
        whether a saved model brings it back; `model` is the model to train.

    Raises:
        TypeError, ValueError: for a model that is not built or not one, a class in place of a
            regularizer, a name that no layer has, and where no kernel is left to regularize.
            The model is then as it was.

    Source: Liu et al. (2018), "Learning towards Minimum Hyperspherical Energy", NeurIPS: half
    space and factor 1 in hidden layers, full space and factor 10 in the output layer.

    Example:

    >>> import keras
    >>> from keras_mhe import regularize
    >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
    >>> table = regularize(model)
    >>> len(model.losses)
    36
    """
    _check_model(model)
    regularizers = {
        "hidden": _check_regularizer(hidden, "hidden"),
        "output": _check_regularizer(output, "output"),
    }
    sites = sites_of(model)
    chosen = _chosen(where, sites)
    outputs = output_layers(model)
    replaceable = {id(layer) for layer in layers_in_graph(model)}
    plans = []
    for site in sites:
        role = "hidden"
        if any(owner is layer for owner in site.owners for layer in outputs or ()):
            role = "output"
        if chosen(site):
            plans.append(planned(site, role, regularizers[role], where, replaceable))
        else:
            plans.append(Plan(site, "skipped", "`where` does not ask for it"))
    plans = all_or_none(plans)
    with scope_of(model):
        wrappers = _wrappers(plans)
    done = [plan for plan in plans if plan.new]
    if not done and not any(plan.note == WRAPPED for plan in plans):
        reasons = "; ".join(f"{plan.site.path}/{plan.site.name}: {plan.note}" for plan in plans)
        raise ValueError(
            f"No kernel of the model can be regularized ({reasons or 'it has none'}). "
            f"Received: model={model!r}"
        )
    for plan in done:
        place(plan.site, total(plan.kept if plan.learns else plan.new + plan.kept))
    new = replaced(model, lambda layer: wrappers.get(id(layer), layer)) if wrappers else model
    _forget_compiled(new)

    saved = saved_regularizers(new)
    title = f"{len(done)} of {len(plans)} kernels are regularized."
    if wrappers:
        title += " Train the `.model` of this table: it has wrappers around the same layers."
    if outputs is None:
        title += " The model's call takes no symbolic tensors: all its layers count as hidden."
    return Table(new, [_row(plan, saved) for plan in plans] + _other_weights(model, sites), title)


def unregularize(model: keras.Model) -> Table:
    """Takes every energy of this package off a model, and its wrappers: undoes `regularize`.

    Other regularizers and all weights stay. A model saved after this loads without this package.

    Args:
        model: as in `regularize`.

    Returns:
        A `Table` of the kernels that had an energy. `model` is the given model or, where layers
        were in wrappers, another of the same layers without them.

    Raises:
        TypeError, ValueError: for what is no model, or not built.

    Example:

    >>> import keras
    >>> from keras_mhe import regularize, unregularize
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> table = regularize(model)
    >>> table = unregularize(model)
    >>> model.losses
    []
    """
    _check_model(model)
    replaceable = {id(layer) for layer in layers_in_graph(model)}
    rows = []

    def row(site: Site, role: str, regularizer: Any, note: str) -> None:
        shape = None if site.kernel.variable is None else tuple(site.kernel.variable.shape)
        rows.append(Row(site.path, site.name, shape, role=role, regularizer=regularizer, note=note))

    for site in sites_of(model):
        wrapped = any(isinstance(owner, HypersphericalRegularization) for owner in site.owners)
        if wrapped and id(site.owners[0]) not in replaceable:
            row(
                site, "skipped", None, "wrapped where the layer is made: take the wrapper off there"
            )
            continue
        terms = terms_of(regularizer_of(site.kernel))
        kept = total([term for term in terms if not is_energy(term)])
        if wrapped or kept is not total(terms):
            own = kept is not None and type(kept).__module__.startswith("keras_mhe")
            row(site, "removed", kept, "a sum that loads with keras_mhe only" if own else "")
        place(site, kept)

    def bare(layer: Any) -> Any:
        while isinstance(layer, HypersphericalRegularization):
            layer = layer.layer
        return layer

    new = replaced(model, bare) if has_graph(model) else model
    _forget_compiled(new)
    return Table(new, rows, f"{sum(row.role == 'removed' for row in rows)} energies are removed.")
