"""The two small factors by which LoRA changes a kernel."""

import sys
from typing import Any

import keras

_PREFIX = "lora_"


def low_rank_factors(layer: Any, name: str) -> list[Any]:
    """The factors A and B of a layer's kernel or embeddings; [] without LoRA."""
    if not getattr(layer, "lora_enabled", False):
        return []
    return [getattr(layer, f"{_PREFIX}{name}_{factor}") for factor in "ab"]


def is_low_rank_factor(value: Any) -> bool:
    """Whether what a regularizer is called with is a factor of LoRA, not a kernel.

    `layer.enable_lora()` hands the regularizer of the kernel on to both factors. What is more, B
    starts at zero, where directions mean nothing and the first force on them is without bound.
    """
    if not isinstance(value, keras.Variable):
        # In a training step on JAX Keras passes the bare value of the variable in its own frame.
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__", "").startswith("keras_mhe."):
            frame = frame.f_back
        value = frame.f_locals.get("variable")
    return isinstance(value, keras.Variable) and value.name.startswith(_PREFIX)
