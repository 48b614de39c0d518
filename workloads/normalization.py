"""Batch normalization that does not dominate the time of small networks on CPUs."""

from typing import Any

import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`BatchNormalization` over the last axis that trains with one operation of TensorFlow.

    Keras computes it in several operations, each of which reads the whole tensor. Results are equal
    up to rounding.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes with the statistics of the batch in training, else with the moving ones."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        inputs = tf.cast(inputs, self.compute_dtype)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # TensorFlow returns the unbiased variance, and the moving variance of Keras is biased.
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], variance.dtype)
        statistics = (mean, variance * (1 - 1 / count))
        variables = (self.moving_mean, self.moving_variance)
        for variable, value in zip(variables, statistics, strict=True):
            variable.assign(variable * self.momentum + value * (1 - self.momentum))
        return outputs


def batch_normalization() -> keras.layers.BatchNormalization:
    """Returns the fused layer for bfloat16 on TensorFlow, and else Keras's layer.

    Float32 keeps Keras's layer, so that recorded runs can be repeated.
    """
    bfloat16 = keras.config.dtype_policy().compute_dtype == "bfloat16"
    if bfloat16 and keras.backend.backend() == "tensorflow":
        return FusedBatchNormalization()
    return keras.layers.BatchNormalization()
