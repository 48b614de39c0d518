"""Whole models: every kernel of a model that exists is given an energy, or loses it."""

import inspect
from typing import Any

import keras

from keras_mhe._backend import scope_of
from keras_mhe.choosing import Where, check_model, chosen
from keras_mhe.layers import HypersphericalRegularization
from keras_mhe.obstacles import why_apart
from keras_mhe.outputs import output_layers
from keras_mhe.placing import all_or_nothing, is_bound, is_energy, place, regularizer_of, total
from keras_mhe.planning import WRAPPED, Plan, all_or_none, planned
from keras_mhe.regularizers import (
    MHE,
    HalfSpaceMHE,
    HypersphericalRegularizer,
    RegularizerSum,
    terms_of,
)
from keras_mhe.saved import Claim, are_saved
from keras_mhe.sites import Site, other_weights, sites_of
from keras_mhe.table import Row, Table
from keras_mhe.wrapping import layers_in_graph, replaced


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


def _wrappers(plans: list[Plan]) -> dict[int, HypersphericalRegularization]:
    """The wrappers of layers whose energies learn, by the id of the layer."""
    wrappers = {}
    for plan in plans:
        owner = plan.site.owners[0]
        if plan.learns and id(owner) not in wrappers:
            wrappers[id(owner)] = HypersphericalRegularization(
                owner, total(plan.new), name=owner.name, trainable=owner.trainable
            )
    return wrappers


def _other_rows(model: keras.Model, sites: list[Site]) -> list[Row]:
    """Rows of weights that are no kernels."""
    return [
        Row(
            layer=path,
            kernel=weight.name,
            shape=tuple(weight.shape),
            role="skipped",
            note=why_apart(weight.name),
        )
        for path, weight in other_weights(model, sites)
    ]


def _forget_compiled(model: keras.Model) -> None:
    """Has Keras compile the training step anew, which it would not without being told."""
    for part in model._flatten_layers():
        # Not None in their place: a callback may have called.
        if getattr(part, "train_function", None) is not None:
            part.make_train_function(force=True)
        if getattr(part, "test_function", None) is not None:
            part.make_test_function(force=True)


def _attach(sites: list[Site]) -> None:
    """Gives kernels back to their wrappers, if another model of the same layers took them."""
    for site in sites:
        if isinstance(site.owners[0], HypersphericalRegularization):
            site.owners[0].attach()


def _claim(plan: Plan) -> Claim:
    """Where in the model's config a kernel's regularizer ought to be."""
    site = plan.site
    if not plan.new or site.kernel.factors:
        # With LoRA the config has it, but Keras puts it on both factors when it loads.
        return Claim([], "", None)
    if plan.learns:
        # The wrapper has the layer's name.
        return Claim(site.owners[:1], "regularizer", total(plan.new))
    return Claim(site.owners, site.kernel.argument, regularizer_of(site.kernel))


def _row(plan: Plan, saved: bool) -> Row:
    site, note = plan.site, plan.note
    if plan.new and not saved:
        note = "; ".join([*filter(None, [note]), "not saved: call `regularize` after loading"])
    groups, dimension, neurons = plan.extents or (None, None, None)
    return Row(
        layer=site.path,
        kernel=site.name,
        shape=site.kernel.shape,
        groups=groups,
        dimension=dimension,
        neurons=neurons,
        role=plan.role,
        regularizer=total(plan.new + plan.kept) if plan.learns else regularizer_of(site.kernel),
        saved=saved,
        note=note,
    )


def _reasons(plans: list[Plan]) -> str:
    """Why kernels are skipped, a kernel for each reason."""
    first = {plan.note: plan.site for plan in reversed(plans)}
    reasons = [f"{site.path}/{site.name}: {note}" for note, site in reversed(first.items())]
    return "; ".join(reasons) or "it has none"


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

    Examples:
        >>> import keras
        >>> from keras_mhe import regularize
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
        >>> table = regularize(model)
        >>> len(model.losses)
        36
    """
    check_model(model)
    regularizers = {
        "hidden": _check_regularizer(hidden, "hidden"),
        "output": _check_regularizer(output, "output"),
    }
    sites = sites_of(model)
    asked_for = chosen(where, sites)
    outputs, unknown = output_layers(model)
    replaceable = {id(layer) for layer in layers_in_graph(model)}
    plans = []
    for site in sites:
        role = "output" if site.belongs_to(outputs) else "hidden"
        if asked_for(site):
            plans.append(planned(site, role, regularizers[role], where, replaceable))
        else:
            plans.append(Plan(site, "skipped", "`where` does not ask for it"))
    plans = all_or_none(plans)
    done = [plan for plan in plans if plan.new]
    if not done and not any(plan.note == WRAPPED for plan in plans):
        raise ValueError(
            f"No kernel of the model can be regularized ({_reasons(plans)}). "
            f"Received: model={model!r}"
        )
    title = f"Kernels regularized: {len(done)} of {len(plans)}."
    with all_or_nothing(sites):
        for plan in done:
            place(plan.site, total(plan.kept if plan.learns else plan.new + plan.kept))
        with scope_of(model):
            wrappers = _wrappers(plans)
        new = model
        if wrappers:
            new, lost = replaced(model, lambda layer: wrappers.get(id(layer), layer))
            title += " Train the `.model` of this table: it has wrappers around the same layers."
            title += lost
    _attach(sites)
    _forget_compiled(model)
    if unknown:
        title += f" Not known which layers give the output of {unknown}: all in it are hidden."
    saved = are_saved(new, [_claim(plan) for plan in plans])
    rows = [_row(plan, known) for plan, known in zip(plans, saved, strict=True)]
    return Table(new, rows + _other_rows(model, sites), title)


def unregularize(model: keras.Model) -> Table:
    """Takes every energy of this package off a model, and its wrappers: undoes `regularize`.

    Other regularizers and all weights stay. A model saved after this loads without this package.

    Args:
        model: functional, Sequential or subclassed, as in `regularize`.

    Returns:
        A `Table` of the kernels that had an energy. `model` is the given model or, where layers
        were in wrappers, another of the same layers without them.

    Raises:
        TypeError, ValueError: for what is no model, or not built.

    Examples:
        >>> import keras
        >>> from keras_mhe import regularize, unregularize
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> table = regularize(model)
        >>> table = unregularize(model)
        >>> model.losses
        []
    """
    check_model(model)
    replaceable = {id(layer) for layer in layers_in_graph(model)}
    sites, rows = sites_of(model), []

    def row(site: Site, role: str, regularizer: Any, note: str) -> None:
        named = (site.path, site.name, site.kernel.shape)
        rows.append(Row(*named, role=role, regularizer=regularizer, note=note))

    def bare(layer: Any) -> Any:
        while isinstance(layer, HypersphericalRegularization):
            layer = layer.layer
        return layer

    with all_or_nothing(sites):
        for site in sites:
            wrapped = any(isinstance(owner, HypersphericalRegularization) for owner in site.owners)
            outermost = isinstance(site.owners[0], HypersphericalRegularization)
            if wrapped and not (outermost and id(site.owners[0]) in replaceable):
                note = "wrapped where the layer is made: take the wrapper off there"
                row(site, "skipped", regularizer_of(site.kernel), note)
                continue
            terms = terms_of(regularizer_of(site.kernel))
            others = [term for term in terms if not is_energy(term)]
            if len(others) < len(terms) or wrapped or is_bound(site.kernel):
                kept = total(others)
                own = isinstance(kept, RegularizerSum)
                row(site, "removed", kept, "a sum that loads with keras_mhe only" if own else "")
                place(site, kept)
        new, lost = replaced(model, bare)
    _forget_compiled(model)
    removed = sum(row.role == "removed" for row in rows)
    return Table(new, rows, f"Kernels that had an energy: {removed}." + lost)
