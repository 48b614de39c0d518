"""The only module that uses what Keras keeps private.

Each function names what it relies on. All of it was tested with Keras 3.12 to 3.15. If Keras no
longer has it, the function raises a RuntimeError that says so; it never returns a guess.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import keras

# The classes of layers with `enable_lora`.
_WITH_LORA = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Embedding,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
# Modules whose frames are between Keras and the functions below. PyTorch's are of the decorator
# that keeps regularizers out of its graphs.
_BETWEEN = ("keras_mhe.", "torch.")
_LAYER_MODULE, _LOSS_METHOD = "keras.src.layers.layer", "_get_regularization_losses"


def _changed(what: str) -> RuntimeError:
    return RuntimeError(
        f"keras_mhe relies on {what}, which Keras {keras.__version__} does not have. Install a "
        "newer version of keras-mhe, or a version of Keras that it was tested with (3.12 to 3.15)."
    )


def _private(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise _changed(f"`{type(owner).__name__}.{name}`") from None


def nested_layers(layer: keras.layers.Layer, *, direct: bool = False) -> list[keras.layers.Layer]:
    """The layers in a layer or model, without itself; with `direct` only the first level.

    Relies on `Layer._flatten_layers`, which also finds layers in lists and dicts of attributes.
    """
    flatten = _private(layer, "_flatten_layers")
    return list(flatten(include_self=False, recursive=not direct))


@functools.cache
def _records_history() -> bool:
    return hasattr(keras.Input((1,), name="keras_mhe_probe"), "_keras_history")


def source_of(tensor: keras.KerasTensor) -> tuple[Any, Any, int] | None:
    """The operation that a symbolic tensor comes from, its arguments, and the output's index.

    None for a tensor without a history. Relies on `KerasTensor._keras_history` and
    `Operation._inbound_nodes`.
    """
    history = getattr(tensor, "_keras_history", None)
    if history is None:
        if not _records_history():
            raise _changed("`KerasTensor._keras_history`")
        return None
    operation, node, index = history
    return operation, _private(operation, "_inbound_nodes")[node].arguments, index


@contextlib.contextmanager
def no_new_nodes(layer: keras.layers.Layer) -> Iterator[None]:
    """Removes what calls within the block add to the graph of a layer and its sublayers.

    Relies on `Operation._inbound_nodes` and `Operation._outbound_nodes`.
    """
    names = ("_inbound_nodes", "_outbound_nodes")
    parts = [layer, *nested_layers(layer)]
    lists = [_private(part, name) for part in parts for name in names]
    sizes = [len(nodes) for nodes in lists]
    try:
        yield
    finally:
        for nodes, size in zip(lists, sizes, strict=True):
            del nodes[size:]


def attention_regularizer_attribute(layer: keras.layers.Layer) -> str:
    """The attribute of an attention layer with the kernel regularizer that `get_config` returns.

    Relies on `MultiHeadAttention._kernel_regularizer` or `GroupQueryAttention.kernel_regularizer`.
    """
    for name in ("_kernel_regularizer", "kernel_regularizer"):
        if hasattr(layer, name):
            return name
    raise _changed(f"`{type(layer).__name__}._kernel_regularizer`")


def low_rank_factors(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The factors A and B of a layer's kernel or embeddings; [] without LoRA.

    Relies on attributes such as `Dense.lora_kernel_a` and `Dense.lora_kernel_b`.
    """
    if not isinstance(layer, _WITH_LORA) or not layer.lora_enabled:
        return []
    name = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
    return [_private(layer, f"lora_{name}_{factor}") for factor in "ab"]


def _caller() -> tuple[Any, tuple[str, str]]:
    """The frame outside of this package that calls a regularizer, its module and its function."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return frame, (frame.f_globals.get("__name__", ""), frame.f_code.co_name)


def is_low_rank_factor() -> bool:
    """Whether Keras now calls a regularizer with a factor of LoRA instead of a kernel.

    `layer.enable_lora()` assigns the regularizer of the kernel to both factors. B starts at zero,
    where directions are undefined and the first force would be unlimited.

    A regularizer receives a tensor, which does not tell its layer. Therefore this relies on the
    local names `self` and `variable` in `Layer._get_regularization_losses`, the method of Keras
    that calls regularizers. The variable is a factor if a layer in `self` has it as one.
    """
    if not hasattr(keras.layers.Layer, _LOSS_METHOD):
        raise _changed(f"`Layer.{_LOSS_METHOD}`")
    frame, caller = _caller()
    # Otherwise it is a user, or another method of Keras.
    if caller != (_LAYER_MODULE, _LOSS_METHOD):
        return False
    for name in ("self", "variable"):
        if name not in frame.f_locals:
            raise _changed(f"the name `{name}` in `Layer.{_LOSS_METHOD}`")
    owner, variable = frame.f_locals["self"], frame.f_locals["variable"]
    return any(
        factor is variable
        for layer in (owner, *nested_layers(owner))
        for factor in low_rank_factors(layer)
    )


def is_activity() -> bool:
    """Whether Keras now calls a regularizer with the outputs of a layer, as `activity_regularizer`.

    Relies on `Layer.__call__`, which calls activity regularizers itself.
    """
    return _caller()[1] == (_LAYER_MODULE, "__call__")


@contextlib.contextmanager
def not_compiled(model: keras.Model) -> Iterator[None]:
    """Lets Keras clone a model without compiling the clone, which fails for some custom losses.

    Relies on `Model.compiled`, which `clone_model` reads, being an attribute that can be set.
    """
    compiled = _private(model, "compiled")
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def forget_compiled_steps(model: keras.Model) -> None:
    """Makes Keras compile training and test steps again, with the regularizers as they are now.

    Relies on `Model.train_function`, `test_function` and the methods that make them.
    """
    for part in [model, *nested_layers(model)]:
        if not isinstance(part, keras.Model):
            continue
        # Made again instead of set to None: a callback may have called this during `fit`.
        if _private(part, "train_function") is not None:
            _private(part, "make_train_function")(force=True)
        if _private(part, "test_function") is not None:
            _private(part, "make_test_function")(force=True)


class _Factor(keras.random.SeedGenerator):
    """A variable that a model tracks as state, but neither trains nor saves: `state`."""

    def __init__(self, value: float) -> None:
        self.state = keras.Variable(
            keras.initializers.Constant(value),
            shape=(),
            dtype=keras.backend.result_type("float32", keras.config.floatx()),
            trainable=False,
            autocast=False,
            # All replicas have the same value.
            aggregation="only_first_replica",
            name="factor",
        )


def add_state(model: keras.Model, value: float) -> keras.Variable:
    """A variable that is state of a model's compiled steps, but not one of its weights.

    Weights would change what `get_weights` returns and what files contain. Relies on the list
    `Layer._seed_generators`, whose elements have a variable `state`.
    """
    factor = _Factor(value)
    _private(model, "_seed_generators").append(factor)
    if not any(variable is factor.state for variable in model.non_trainable_variables):
        raise _changed("`Layer._seed_generators` as a part of `Layer.variables`")
    return factor.state
