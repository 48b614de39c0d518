"""A spectral-normalised GAN with and without half-space MHE on both networks (MHE-GAN)."""

from functools import cache
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from scipy import linalg

from experiments.data import cifar, digits, scaled
from experiments.experiment import Experiment, Outcome
from experiments.records import Config, Record
from experiments.small import class_vectors, features_of, fit
from keras_mhe import HalfSpaceMHE, regularize

VARIANTS = {
    "baseline": None,
    "half-space MHE(1)": HalfSpaceMHE(1.0),
    "half-space MHE(10)": HalfSpaceMHE(10.0),
}
_BATCH, _NOISE, _JUDGED = 64, 64, 5000


def _generator(size: int, channels: int, width: int) -> keras.Sequential:
    """From noise to images from -1 to 1; each block doubles the size."""
    stack: list[Any] = [
        keras.Input((_NOISE,)),
        layers.Dense(16 * width, use_bias=False),
        layers.Reshape((4, 4, width)),
    ]
    for _ in range((size // 4).bit_length() - 1):
        stack += [layers.BatchNormalization(), layers.ReLU(), layers.UpSampling2D()]
        stack.append(layers.Conv2D(width, 3, padding="same", use_bias=False))
    stack += [layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*stack, layers.Conv2D(channels, 3, padding="same", activation="tanh")])


def _discriminator(size: int, channels: int, width: int) -> keras.Sequential:
    """From images to a number, above zero for real ones; each block halves the size."""
    stack: list[Any] = [keras.Input((size, size, channels))]
    for _ in range((size // 4).bit_length() - 1):
        for stride in (1, 2):
            convolution = layers.Conv2D(width, 2 + stride, stride, padding="same")
            stack += [layers.SpectralNormalization(convolution), layers.LeakyReLU(0.1)]
    return keras.Sequential(
        [*stack, layers.Flatten(), layers.SpectralNormalization(layers.Dense(1))]
    )


def _hinge(real: Any, outputs: Any) -> Any:
    """Of a discriminator; `real` is 1 or -1."""
    return ops.mean(ops.relu(1 - real * outputs), axis=-1)


def _negative(_: Any, outputs: Any) -> Any:
    """Of a generator: what the discriminator says of its images, the other way round."""
    return -ops.mean(outputs, axis=-1)


def _images(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images from -1 to 1 and labels."""
    if source == "digits":
        x, y = digits()
        return 2 * x - 1, y
    images = cifar(source)
    return scaled(images.x), images.y


@cache
def _judge(source: str) -> tuple[keras.Sequential, keras.layers.Layer]:
    """A classifier of the real images: its features, and what tells the classes from them."""
    x, y = _images(source)
    keras.utils.set_random_seed(0)
    features, head = features_of(x.shape[1:], 32), class_vectors(int(y.max()) + 1, None)
    fit(keras.Sequential([features, head]), x, y, 0, passes=40 if source == "digits" else 5)
    return features, head


def judged(source: str, images: np.ndarray) -> dict[str, float]:
    """What a classifier of the real images says of others.

    Score: `exp(mean KL(p(class | image) || p(class)))`, 1 to the number of classes, the higher the
    better: each image is of one class, all together of all (Salimans et al., 2016). Distance: of
    Fréchet, between normal distributions fitted to features of real and given images (Heusel et
    al., 2017), the lower the better.
    """
    features, head = _judge(source)
    points, real = (
        features.predict(each, batch_size=500, verbose=0).astype("float64")
        for each in (images, _images(source)[0][:10_000])
    )
    p = ops.convert_to_numpy(ops.softmax(head(points))).astype("float64") + 1e-12
    score = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)))
    shift = np.sum((points.mean(axis=0) - real.mean(axis=0)) ** 2)
    ours, theirs = np.cov(points.T), np.cov(real.T)
    # The trace of the root of the product, from eigenvalues that are real but for rounding.
    roots = np.sqrt(np.maximum(linalg.eigvals(ours @ theirs).real, 0))
    return {
        "judge's score": score,
        "Fréchet distance": shift + np.trace(ours) + np.trace(theirs) - 2 * roots.sum(),
    }


def _adam(steps: int) -> keras.optimizers.Adam:
    return keras.optimizers.Adam(
        keras.optimizers.schedules.PolynomialDecay(2e-4, steps, 0.0), beta_1=0.5, beta_2=0.9
    )


def train(
    makes: keras.Sequential,
    tells: keras.Sequential,
    images: np.ndarray,
    steps: int,
    rng: np.random.Generator,
) -> None:
    """A step of the discriminator and one of the generator in turn."""

    def noise() -> np.ndarray:
        return rng.standard_normal((_BATCH, _NOISE)).astype("float32")

    both = keras.Sequential([makes, tells])
    tells.compile(_adam(steps), _hinge)
    both.compile(_adam(steps), _negative)
    real = np.repeat([1.0, -1.0], _BATCH).astype("float32")[:, None]
    for _ in range(steps):
        drawn = ops.convert_to_numpy(makes(noise(), training=True))
        batch = [images[rng.integers(len(images), size=_BATCH)], drawn]
        # TensorFlow asks what is frozen at the first step only, JAX at each.
        tells.trainable = True
        tells.train_on_batch(np.concatenate(batch), real)
        tells.trainable = False
        both.train_on_batch(noise(), real[:_BATCH])


def run(config: Config, source: str) -> Outcome:
    """One training of two networks."""
    seed = int(config["seed"])
    x, _ = _images(source)
    # Its own seed is behind it when this one is set again.
    _judge(source)
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    shape = (x.shape[1], x.shape[3], int(config["width"]))
    makes, tells = _generator(*shape), _discriminator(*shape)
    regularizer = VARIANTS[str(config["variant"])]
    if regularizer is not None:
        for network in (makes, tells):
            regularize(network, regularizer, regularizer)
    train(makes, tells, x, int(config["steps"]), rng)
    drawn = makes.predict(
        rng.standard_normal((_JUDGED, _NOISE)).astype("float32"), batch_size=500, verbose=0
    )
    details = {"images": drawn[:40].astype("float64").round(2).tolist()} if seed == 0 else None
    return Outcome(judged(source, drawn), details)


def draw(records: list[Record]) -> Figure:
    """The same 40 draws of the generators of seed 0."""
    shown = [record for record in records if record["config"]["seed"] == 0]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(3.4 * len(shown), 2.6), layout="constrained", squeeze=False
    )
    for ax, record in zip(axes[0], shown, strict=True):
        images = (np.array(record["details"]["images"]) + 1) / 2
        # A frame of grey around each.
        frame = ((0, 0), (1, 1), (1, 1), (0, 0))
        images = np.pad(images, frame, constant_values=0.5)
        _, size, _, channels = images.shape
        rows = images.reshape(5, 8, size, size, channels).swapaxes(1, 2)
        ax.imshow(rows.reshape(5 * size, 8 * size, channels), cmap="gray", vmin=0, vmax=1)
        ax.set_title(record["config"]["variant"], fontsize="medium")
        ax.set_axis_off()
    return figure


experiment = Experiment(
    "gan",
    __doc__,
    run,
    tuple(VARIANTS),
    headlines=("judge's score", "Fréchet distance"),
    grid={"data": ("digits",), "width": (32,), "steps": (2000,)},
    quick={"width": (8,), "steps": (10,)},
    closer=draw,
)
