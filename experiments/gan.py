"""A GAN with spectral normalization, with and without half-space MHE on both networks."""

from functools import cache
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from scipy import linalg

from experiments.classifiers import class_vectors, feature_network, fit
from experiments.data import digit_images, load_images, scaled
from experiments.experiment import Experiment, Outcome
from experiments.records import Config, Record
from keras_mhe import HalfSpaceMHE, regularize

VARIANTS = {
    "baseline": None,
    "half-space MHE(1)": HalfSpaceMHE(1.0, bounded=False),
    "half-space MHE(10)": HalfSpaceMHE(10.0, bounded=False),
}
# Images per batch, dimension of the noise, and generated images that are evaluated.
_BATCH, _NOISE, _EVALUATED = 64, 64, 5000


def _generator(size: int, channels: int, width: int) -> keras.Sequential:
    """Builds a network from noise to images from -1 to 1; each block doubles the size."""
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
    """Builds a network from images to a number, positive for real ones; blocks halve the size."""
    stack: list[Any] = [keras.Input((size, size, channels))]
    for _ in range((size // 4).bit_length() - 1):
        for stride in (1, 2):
            convolution = layers.Conv2D(width, 2 + stride, stride, padding="same")
            stack += [layers.SpectralNormalization(convolution), layers.LeakyReLU(0.1)]
    return keras.Sequential(
        [*stack, layers.Flatten(), layers.SpectralNormalization(layers.Dense(1))]
    )


def _hinge_loss(real: Any, outputs: Any) -> Any:
    """Loss of the discriminator; `real` is 1 or -1."""
    return ops.mean(ops.relu(1 - real * outputs), axis=-1)


def _generator_loss(_: Any, outputs: Any) -> Any:
    """Loss of the generator: the negative output of the discriminator for its images."""
    return -ops.mean(outputs, axis=-1)


def _images(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images from -1 to 1 and labels."""
    if source == "digits":
        x, y = digit_images()
        return 2 * x - 1, y
    images = load_images(source)
    return scaled(images.x), images.y


@cache
def _classifier(source: str) -> tuple[keras.Sequential, keras.layers.Layer]:
    """Trains a classifier of the real images; returns its feature network and output layer."""
    x, y = _images(source)
    keras.utils.set_random_seed(0)
    features, head = feature_network(x.shape[1:], 32), class_vectors(int(y.max()) + 1, None)
    fit(keras.Sequential([features, head]), x, y, 0, passes=40 if source == "digits" else 5)
    return features, head


def classifier_metrics(source: str, images: np.ndarray) -> dict[str, float]:
    """Evaluates generated images with a classifier of the real images.

    The score is `exp(mean KL(p(class | image) || p(class)))`, from 1 to the number of classes;
    higher is better. It is high if each image clearly belongs to one class and all classes occur
    (Salimans et al., 2016). The Fréchet distance is taken between normal distributions fitted to
    the features of real and generated images; lower is better (Heusel et al., 2017).
    """
    features, head = _classifier(source)
    points, real = (
        features.predict(each, batch_size=500, verbose=0).astype("float64")
        for each in (images, _images(source)[0][:10_000])
    )
    p = ops.convert_to_numpy(ops.softmax(head(points))).astype("float64") + 1e-12
    score = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)))
    mean_term = np.sum((points.mean(axis=0) - real.mean(axis=0)) ** 2)
    covariance, real_covariance = np.cov(points.T), np.cov(real.T)
    # The trace of the square root of the product. Its eigenvalues are real up to rounding.
    roots = np.sqrt(np.maximum(linalg.eigvals(covariance @ real_covariance).real, 0))
    return {
        "judge's score": score,
        "Fréchet distance": mean_term
        + np.trace(covariance)
        + np.trace(real_covariance)
        - 2 * roots.sum(),
    }


def _adam(steps: int) -> keras.optimizers.Adam:
    return keras.optimizers.Adam(
        keras.optimizers.schedules.PolynomialDecay(2e-4, steps, 0.0), beta_1=0.5, beta_2=0.9
    )


def train(
    generator: keras.Sequential,
    discriminator: keras.Sequential,
    images: np.ndarray,
    steps: int,
    rng: np.random.Generator,
) -> None:
    """Trains both networks in alternating steps, the discriminator first."""

    def noise() -> np.ndarray:
        return rng.standard_normal((_BATCH, _NOISE)).astype("float32")

    both = keras.Sequential([generator, discriminator])
    discriminator.compile(_adam(steps), _hinge_loss)
    both.compile(_adam(steps), _generator_loss)
    real = np.repeat([1.0, -1.0], _BATCH).astype("float32")[:, None]
    for _ in range(steps):
        generated = ops.convert_to_numpy(generator(noise(), training=True))
        batch = [images[rng.integers(len(images), size=_BATCH)], generated]
        # TensorFlow reads `trainable` at the first step only, JAX at every step.
        discriminator.trainable = True
        discriminator.train_on_batch(np.concatenate(batch), real)
        discriminator.trainable = False
        both.train_on_batch(noise(), real[:_BATCH])


def run(config: Config, source: str) -> Outcome:
    """Trains both networks once."""
    seed = int(config["seed"])
    x, _ = _images(source)
    # The classifier sets its own seed, so it is trained before the seed of this run is set.
    _classifier(source)
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    shape = (x.shape[1], x.shape[3], int(config["width"]))
    generator, discriminator = _generator(*shape), _discriminator(*shape)
    regularizer = VARIANTS[str(config["variant"])]
    if regularizer is not None:
        for network in (generator, discriminator):
            regularize(network, regularizer, regularizer)
    train(generator, discriminator, x, int(config["steps"]), rng)
    generated = generator.predict(
        rng.standard_normal((_EVALUATED, _NOISE)).astype("float32"), batch_size=500, verbose=0
    )
    details = {"images": generated[:40].astype("float64").round(2).tolist()} if seed == 0 else None
    return Outcome(classifier_metrics(source, generated), details)


def draw(records: list[Record]) -> Figure:
    """Draws 40 images of each generator of seed 0, from the same noise."""
    shown = [record for record in records if record["config"]["seed"] == 0]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(3.4 * len(shown), 2.6), layout="constrained", squeeze=False
    )
    for ax, record in zip(axes[0], shown, strict=True):
        images = (np.array(record["details"]["images"]) + 1) / 2
        # A gray frame around each image.
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
    main_metrics=("judge's score", "Fréchet distance"),
    grid={"data": ("digits",), "width": (32,), "steps": (2000,)},
    quick_grid={"width": (8,), "steps": (10,)},
    detail_figure=draw,
)
