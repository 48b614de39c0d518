"""What the networks of Liu et al. (2018) share: weight decay, optimizer and losses."""

from typing import Any

import keras
from keras import ops

from keras_mhe.regularizers import RegularizerSum

# The papers' 5e-4 multiplies half the squared norm.
_WEIGHT_DECAY = 2.5e-4
# Of the papers' loss: what is added to every probability, and the share of smoothed labels.
_LEAST_PROBABILITY, _SMOOTHING = 1e-4, 0.01


def with_weight_decay(regularizer: Any) -> Any:
    """Returns the sum of a regularizer, or of nothing for `None`, and the papers' L2."""
    decay = keras.regularizers.L2(_WEIGHT_DECAY)
    return decay if regularizer is None else RegularizerSum([regularizer, decay])


class BoundedCrossEntropy(keras.losses.Loss):
    """`-sum_k t_k log(p_k + 1e-4)`, with the probabilities p of logits and smoothed labels t.

    The loss is at most 9.21, and a confident error has almost no gradient. The programs of the
    papers import their loss from a file that is not published. This one has the values in their
    logs: with 100 classes and confident predictions, 9.2094 for an error and 0.091 otherwise.

    Source: https://github.com/wy1iu/MHE, `log/baseline/log_train_00.txt`.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        target = (1 - _SMOOTHING) * ops.one_hot(y_true, classes, dtype=y_pred.dtype)
        target = target + _SMOOTHING / classes
        return -ops.sum(target * ops.log(ops.softmax(y_pred) + _LEAST_PROBABILITY), axis=-1)


def compiled(model: keras.Model, jit_compile: Any) -> keras.Model:
    """Compiles a model that returns logits, with the papers' optimizer."""
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model
