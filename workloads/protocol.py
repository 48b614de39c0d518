"""What the networks of Liu et al. (2018) share: weight decay, optimizer and loss."""

from typing import Any

import keras

from keras_mhe.regularizers import RegularizerSum

# The papers' 5e-4 multiplies half the squared norm.
_WEIGHT_DECAY = 2.5e-4


def with_weight_decay(regularizer: Any) -> Any:
    """Returns the sum of a regularizer, or of nothing for `None`, and the papers' L2."""
    decay = keras.regularizers.L2(_WEIGHT_DECAY)
    return decay if regularizer is None else RegularizerSum([regularizer, decay])


def compiled(model: keras.Model, jit_compile: Any) -> keras.Model:
    """Compiles a model that returns logits, with the papers' optimizer."""
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model
