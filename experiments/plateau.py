"""CNN-9 with the loss and the rate of the papers' programs: how many steps pass until it learns.

The first steps at a rate of 0.1 make the predictions confident and wrong. The papers' loss has
almost no gradient then, and stays near 9 until weight decay has shrunk the weights.
"""

from typing import Any

import keras

from experiments import cnn9
from experiments.data import load_images, scaled
from experiments.experiment import Experiment, Outcome
from experiments.records import Config
from workloads.augmentation import AugmentedImages
from workloads.cnn9 import cnn9 as network
from workloads.precision import dtype_policy

# A network learns if the accuracy of its training batches, over so many steps, is at least twice
# that of chance. On the plateau, it is that of chance.
_WINDOW = 100


class _StopWhenItLearns(keras.callbacks.Callback):
    """Stops training after the first epoch with an accuracy of at least `least`."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least, self.steps = least, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if logs["accuracy"] >= self.least:
            self.steps = (epoch + 1) * _WINDOW
            self.model.stop_training = True


def run(config: Config, source: str) -> Outcome:
    """Trains until the network learns; the number of steps in the config counts if it does not."""
    images, limit = load_images(source), int(config["steps"])
    classes = int(images.y.max()) + 1
    cnn9.check(config | {"trainer": "fit"}, images.y)
    with dtype_policy(cnn9.PRECISIONS[str(config["precision"])]):
        model = cnn9.build_model(
            network,
            str(config["variant"]),
            int(config["width"]),
            classes,
            float(config["rate"]),
            "bounded",
        )
    model.compile(model.optimizer, model.loss, metrics=["accuracy"])
    chosen = cnn9.training_images(config, images.y)
    batches = AugmentedImages(
        scaled(images.x[chosen]), images.y[chosen], _WINDOW, int(config["seed"])
    )
    stop = _StopWhenItLearns(2 / classes)
    model.fit(batches, epochs=limit // _WINDOW, shuffle=False, verbose=0, callbacks=[stop])
    return Outcome({"steps until it learns": stop.steps or limit})


experiment = Experiment(
    "plateau",
    __doc__,
    run,
    cnn9.experiment.variants,
    main_metrics=("steps until it learns",),
    grid={
        "data": ("cifar10",),
        "width": (16,),
        "images": (50_000,),
        "rate": (0.1,),
        "precision": ("float32",),
        "steps": (10_000,),
    },
    quick_grid={"data": ("digits",), "width": (4,), "images": (512,), "steps": (2 * _WINDOW,)},
    default_variants=(
        "baseline",
        "half-space MHE s=2",
        "half-space MHE s=2 (hidden)",
        "half-space MHE s=2 (classes)",
        "position 0.1 (hidden)",
    ),
)
