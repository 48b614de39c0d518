"""ResNet-32 on CIFAR with the protocol of CNN-9, and one regularizer on all of its kernels."""

from experiments import cnn9
from experiments.experiment import Outcome
from experiments.records import Config
from workloads.resnet32 import resnet32


def run(config: Config, source: str) -> Outcome:
    """Trains ResNet-32 once."""
    return cnn9.train_and_test(resnet32, config, source)


experiment = cnn9.experiment._replace(
    name="resnet32", description=__doc__, run=run, page_rows=({},)
)
