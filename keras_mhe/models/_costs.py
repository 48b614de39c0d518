"""What energies cost beside a training step, and how many neurons keep them cheap.

All costs are in operations of matrix products. They are estimates from the shapes of a model, so
they are the same on all machines.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import keras

from keras_mhe._keras_internals import nested_layers
from keras_mhe.kernels._layer import ATTENTION
from keras_mhe.kernels._model import ModelKernel
from keras_mhe.models._many_neurons import UNBUILT, Sampling, has_many_neurons
from keras_mhe.models._plan import Plan

# The default size of a batch in Keras, and the size of an axis that a model leaves open.
_BATCH, _OPEN_AXIS = 32, 32
# How often a convolution of an unknown output applies its kernel to an example.
_POSITIONS = 64
# What a step on a CPU takes besides products: for the step itself, the update of each weight, each
# entry of the output of a layer, and each pair of neurons.
_STEP, _UPDATE, _ENTRY, _PAIR = 3e7, 40, 400, 60
# An energy that costs less is exact: a draw, which moves neurons in memory, would not be faster.
_CHEAP = 1e8
# The share of a step that other energies may add. Estimates are rough, and the limit is a quarter.
_SHARE = 0.1
# A group is at most so large, because its pairs are in memory at once. It has at least so many
# neurons, a multiple of what suits the hardware.
_LARGEST, _LEAST = 1024, 16


def _sizes(tensors: Any) -> list[list[int]]:
    """The sizes of each tensor for one example."""
    return [
        [_OPEN_AXIS if size is None else size for size in tensor.shape[1:]]
        for tensor in keras.tree.flatten(tensors)
    ]


def _inputs_and_outputs(layer: keras.layers.Layer) -> tuple[list[list[int]], list[list[int]]]:
    """The sizes of inputs and outputs for one example; empty for a layer without a graph."""
    try:
        return _sizes(layer.input), _sizes(layer.output)
    except (AttributeError, ValueError):
        return [], []


def _positions(found: ModelKernel) -> int:
    """How often a layer applies its kernel to one example: pixels, tokens, time steps."""
    if found.kernel.attribute == "embeddings":
        return 0
    for owner in found.owners:
        inputs, outputs = _inputs_and_outputs(owner)
        if inputs and outputs:
            first, last = inputs[0], outputs[0]
            if getattr(owner, "data_format", None) == "channels_first":
                last = [*last[1:], last[0]]
            # A recurrent layer may return the last of its steps only.
            return first[0] if len(first) == 2 and len(last) == 1 else math.prod(last[:-1])
    return _POSITIONS if len(found.kernel.shape or ()) > 2 else 1


def step_cost(model: keras.Model, kernels: Iterable[ModelKernel]) -> float:
    """The cost of a training step with `_BATCH` examples."""
    entries = sum(
        math.prod(sizes)
        for layer in nested_layers(model)
        # A model counts by its layers, and a lookup computes nothing.
        if not isinstance(layer, (keras.Model, keras.layers.Embedding))
        for sizes in _inputs_and_outputs(layer)[1]
    )
    # The kernel meets each example forward, and twice on the way back.
    weights, products = 0, 0
    for found in kernels:
        size = math.prod(found.kernel.shape or (0,))
        weights += size
        products += 6 * _positions(found) * size
    return _STEP + _UPDATE * weights + _BATCH * (_ENTRY * entries + products)


def _energy_cost(neurons: int, dimension: int) -> float:
    """The cost of all pairs of a group of neurons, with two products for each."""
    return neurons**2 * (4.0 * dimension + _PAIR)


def _cost(plan: Plan) -> float:
    assert plan.counts is not None
    groups, dimension, neurons = plan.counts
    return groups * _energy_cost(neurons, dimension)


def _cap(costs: list[float], budget: float) -> float:
    """The largest cost of one energy, so that all together stay within the budget."""
    rest, cap = budget, math.inf
    for i, cost in enumerate(sorted(costs)):
        cap = rest / (len(costs) - i)
        if cost > cap:
            return cap
        rest -= cost
    return math.inf


def _sampling(plan: Plan, cap: float) -> Sampling:
    """Random groups that cost as much as the cap at most."""
    assert plan.counts is not None
    groups, dimension, neurons = plan.counts
    pairs = cap / groups / _energy_cost(1, dimension)
    # With most of the neurons, a draw would cost more than it saves.
    sample = min(int(math.sqrt(pairs)) // _LEAST * _LEAST, _LARGEST, neurons // 2)
    sample = max(sample, min(_LEAST, neurons))
    count = max(1, int(pairs / sample**2)) if sample == _LARGEST else 1
    return Sampling(sample, None if count * sample >= neurons else count)


def cheap_samplings(plans: list[Plan], step: float) -> dict[int, Sampling]:
    """Random groups for the energies that take too long, by the id of `Plan.found`.

    Args:
        plans: energies of all pairs.
        step: the cost of a training step without them.
    """
    known = [plan for plan in plans if plan.counts is not None and _cost(plan) > _CHEAP]
    cap = _cap(list(map(_cost, known)), _SHARE * step)
    groups = {id(plan.found): _sampling(plan, cap) for plan in known if _cost(plan) > cap}
    for plan in plans:
        if plan.counts is None and has_many_neurons(plan.found):
            groups[id(plan.found)] = UNBUILT
    # All projections of attention share one energy.
    shared = defaultdict(list)
    for plan in plans:
        if any(isinstance(owner, ATTENTION) for owner in plan.found.owners):
            shared[id(plan.found.owners[0])].append(id(plan.found))
    for projections in shared.values():
        if some := [groups[each] for each in projections if each in groups]:
            groups |= dict.fromkeys(projections, min(some, key=lambda each: each.sample))
    return groups
