"""How long a model has been trained."""

import keras


def trained_batches(model: keras.Model) -> int:
    """The number of batches that the optimizer of a model has seen; 0 without an optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    # `int` does not accept a variable with several replicas.
    updates = int(keras.ops.convert_to_numpy(optimizer.iterations))
    return updates * batches_per_update(model)


def batches_per_update(model: keras.Model) -> int:
    """The number of batches whose gradients the optimizer accumulates."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1
