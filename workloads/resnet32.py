"""ResNet-32 of He et al. (2016) for CIFAR: 31 convolutions of 3 x 3, and class vectors."""

from typing import Any

import keras

from workloads.normalization import batch_normalization
from workloads.protocol import compiled, with_weight_decay

_BLOCKS = 5


def resnet32(
    hidden: Any, output: Any, width: int, jit_compile: Any, classes: int = 10
) -> keras.Model:
    """Builds and compiles the ResNet-32 of He et al. (2016) for 32 x 32 images.

    A first convolution, three stages of five blocks of two convolutions with `width`, `2 width`
    and `4 width` filters, the mean over all pixels, class vectors. A shortcut to a stage with twice
    as many filters takes every second pixel and appends zeros, so it has no weights.

    Args:
        hidden: regularizer of the hidden kernels beside L2, or `None`.
        output: regularizer of the last kernel beside L2, or `None`.
        width: filters of the first stage; 16 in He et al.
        jit_compile: as in `keras.Model.compile`.
        classes: number of classes.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """
    layers = keras.layers

    def normalized_convolution(x: Any, filters: int, stride: int = 1) -> Any:
        convolution = layers.Conv2D(
            filters,
            3,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=with_weight_decay(hidden),
        )
        return batch_normalization()(convolution(x))

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(normalized_convolution(inputs, width))
    for stage in range(3):
        for block in range(_BLOCKS):
            first = stage > 0 and block == 0
            filters, stride = width << stage, 2 if first else 1
            shortcut = x
            if first:
                pixels = layers.AveragePooling2D(1, strides=2)(x)
                shortcut = keras.ops.pad(pixels, [(0, 0)] * 3 + [(filters // 4, filters // 4)])
            y = layers.ReLU()(normalized_convolution(x, filters, stride))
            y = normalized_convolution(y, filters)
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    class_vectors = layers.Dense(
        classes, kernel_initializer="he_normal", kernel_regularizer=with_weight_decay(output)
    )
    outputs = class_vectors(layers.GlobalAveragePooling2D()(x))
    return compiled(keras.Model(inputs, outputs), jit_compile)
