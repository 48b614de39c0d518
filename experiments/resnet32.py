"""ResNet-32 on CIFAR with the protocol of CNN-9, and one regularizer on all of its kernels."""

from functools import partial

from experiments import cnn9
from workloads.resnet32 import resnet32

experiment = cnn9.experiment._replace(
    name="resnet32", description=__doc__, run=partial(cnn9.run, network=resnet32)
)
