"""CNN-9 of Liu et al. (2018): nine 3 x 3 convolutions, one of 4 x 4, and class vectors."""

from typing import Any

import keras

from workloads.normalization import batch_normalization
from workloads.protocol import compiled, with_weight_decay


def cnn9(hidden: Any, output: Any, width: int, jit_compile: Any, classes: int = 10) -> keras.Model:
    """Builds and compiles the CNN-9 of Liu et al. (2018) for 32 x 32 images.

    Args:
        hidden: regularizer of the hidden kernels beside L2, or `None`.
        output: regularizer of the last kernel beside L2, or `None`.
        width: filters of the first block; 64 in the papers.
        jit_compile: as in `keras.Model.compile`.
        classes: number of classes.
    """
    layers = keras.layers

    def convolution(filters: int, size: int, padding: str, regularizer: Any) -> Any:
        return layers.Conv2D(
            filters,
            size,
            padding=padding,
            kernel_initializer="he_normal",
            kernel_regularizer=with_weight_decay(regularizer),
        )

    stack: list[Any] = [keras.Input((32, 32, 3))]
    for block in range(3):
        for _ in range(3):
            stack.append(convolution(width << block, 3, "same", hidden))
            stack += [batch_normalization(), layers.ReLU()]
        stack.append(layers.MaxPooling2D())
    stack += [convolution(width << 2, 4, "valid", hidden), convolution(classes, 1, "valid", output)]
    stack.append(layers.Flatten())
    return compiled(keras.Sequential(stack), jit_compile)
