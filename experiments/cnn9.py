"""CNN-9 on CIFAR with the papers' protocol, and one regularizer on all of its kernels."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from experiments.data import load_images, scaled
from experiments.experiment import Experiment, InputError, Outcome
from experiments.kernel_curves import REPORTS, curves_of, final_metrics, kept
from experiments.records import Config
from experiments.schedule import StepDecay
from experiments.variants import VARIANTS
from keras_mhe import EnergyMonitor, regularize
from workloads.augmentation import BATCH, AugmentedImages, padded
from workloads.cnn9 import cnn9
from workloads.precision import dtype_policy
from workloads.protocol import BoundedCrossEntropy

IMBALANCES = ("single", "multiple")
_TRAINERS = ("fit", "scan")
# Policies of Keras. Variables and energies remain in float32.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
_LOSSES: dict[str, Callable[[], keras.losses.Loss]] = {
    "cross-entropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "bounded": BoundedCrossEntropy,
}


def training_images(config: Config, labels: np.ndarray) -> np.ndarray:
    """Returns the indices of a training set, which the seed selects.

    If the config has `"imbalance"`, classes are cut: `"single"` keeps a tenth of class 0, and
    `"multiple"` keeps `k + 1` of `n` parts of class `k`, where `n` is the number of classes.
    """
    chosen = np.random.default_rng(int(config["seed"])).permutation(len(labels))
    chosen = chosen[: int(config["images"])]
    if "imbalance" not in config:
        return chosen
    number = np.arange(classes := int(labels.max()) + 1)
    single = np.where(number == 0, 0.1, 1.0)
    kept = single if config["imbalance"] == "single" else (number + 1) / classes
    of_class = [np.flatnonzero(labels[chosen] == k) for k in range(classes)]
    parts = [k[: round(fraction * len(k))] for k, fraction in zip(of_class, kept, strict=True)]
    return chosen[np.sort(np.concatenate(parts))]


def build_model(
    network: Callable[..., keras.Model],
    variant: str,
    width: int,
    classes: int,
    schedule: Any,
    loss: str = "cross-entropy",
) -> keras.Model:
    """Returns a compiled network with the regularizers of a variant."""
    # For stateful regularizers, `regularize` returns another model of the same layers.
    model = regularize(network(None, None, width, "auto", classes), *VARIANTS[variant]()).model
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), _LOSSES[loss]())
    return model


@functools.cache
def _images_on_device(source: str) -> tuple[Any, Any]:
    """Returns all training images and labels on the device, for all runs of a process."""
    images = load_images(source)
    return (
        keras.ops.convert_to_tensor(padded(scaled(images.x))),
        keras.ops.convert_to_tensor(images.y.astype("int32")),
    )


def _train(
    model: keras.Model, config: Config, source: str, callbacks: list[keras.callbacks.Callback]
) -> None:
    """Trains in `REPORTS` epochs of Keras, whatever the number of images."""
    seed, steps = int(config["seed"]), int(config["steps"]) // REPORTS
    images = load_images(source)
    chosen = training_images(config, images.y)
    if config["trainer"] == "fit":
        batches = AugmentedImages(scaled(images.x[chosen]), images.y[chosen], steps, seed)
        model.fit(batches, epochs=REPORTS, shuffle=False, verbose=0, callbacks=callbacks)
    else:
        # It needs JAX, `fit` does not.
        from workloads import scan

        scan.fit(model, *_images_on_device(source), chosen, REPORTS, steps, seed, callbacks)


def check(config: Config, labels: np.ndarray) -> None:
    """Raises an error for parts of a config that cannot be used."""
    if int(config["steps"]) % REPORTS:
        raise InputError(f"Steps must be a multiple of {REPORTS}. Received: {config['steps']}")
    if not BATCH <= int(config["images"]) <= len(labels):
        raise InputError(
            f"Images must be from {BATCH} to {len(labels)}, the size of the training set. "
            f"Received: {config['images']}"
        )
    known = {
        "imbalance": IMBALANCES,
        "trainer": _TRAINERS,
        "precision": tuple(PRECISIONS),
        "loss": tuple(_LOSSES),
    }
    for part, values in known.items():
        if config.get(part, values[0]) not in values:
            raise InputError(f"{part} is one of {', '.join(values)}. Received: {config[part]}")
    if config["trainer"] == "scan" and keras.backend.backend() != "jax":
        raise InputError(
            "The trainer `scan` needs KERAS_BACKEND=jax. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def train_and_test(
    network: Callable[..., keras.Model],
    config: Config,
    source: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Trains once; measures accuracy on all test images, and the kernels during training."""
    images = load_images(source)
    check(config, images.y)
    schedule = StepDecay(float(config["rate"]), int(config["steps"]), int(config["warmup"]))
    with dtype_policy(PRECISIONS[str(config["precision"])]):
        model = build_model(
            network,
            str(config["variant"]),
            int(config["width"]),
            int(images.y.max()) + 1,
            schedule,
            str(config["loss"]),
        )
    monitor = EnergyMonitor()
    _train(model, config, source, [monitor, *callbacks])
    logits = model.predict(scaled(images.x_test), batch_size=1000, verbose=0)
    correct = 100 * (logits.argmax(axis=-1) == images.y_test)
    curves = curves_of(monitor)
    metrics = {"accuracy %": correct.mean(), **final_metrics(curves)}
    if "imbalance" in config:
        metrics["class 0 %"] = correct[images.y_test == 0].mean()
    return Outcome(metrics, kept(curves, str(config["variant"])))


def run(config: Config, source: str) -> Outcome:
    """Trains CNN-9 once."""
    return train_and_test(cnn9, config, source)


experiment = Experiment(
    "cnn9",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("accuracy %",),
    # A quarter of the papers' width, a fifth of their images, 20 passes, and their rate after a
    # warm-up, without which this small network does not learn.
    grid={
        "data": ("cifar10",),
        "width": (16,),
        "images": (10_000,),
        "steps": (1560,),
        "rate": (0.1,),
        "warmup": (300,),
        "trainer": ("fit",),
        "precision": ("float32",),
        "loss": ("cross-entropy",),
    },
    quick_grid={"data": ("digits",), "width": (4,), "images": (512,), "steps": (REPORTS,)},
    page_rows=({"rate": (0.1,), "trainer": ("fit",)}, {"variant": ("half-space MHE s=2",)}),
    page_metrics=("accuracy %", "mean position"),
    chance_level=lambda config: 1.0 if "cifar100" in str(config["data"]) else 10.0,
    default_variants=("baseline", "half-space MHE s=2", "half-space MHE s=0", "RP-CoMHE"),
)
