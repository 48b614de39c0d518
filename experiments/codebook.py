"""Autoencoders with a codebook: does an energy bring codes into use that no image uses?

An encoder turns a digit into a few vectors, each of which is replaced by the nearest of a set of
learned vectors, the codes. A code that is never the nearest gets no gradient, so it stays unused.
An energy of the codes gives each of them a gradient. An energy of the encoder's vectors spreads
what the codes have to cover.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from experiments.classifiers import feature_network, fit
from experiments.data import split_digits
from experiments.experiment import Experiment, InputError, Outcome
from experiments.records import Config
from keras_mhe import MHE, Uniformity, hyperspherical_energy

# Vectors of an image, and their dimension.
SLOTS, DIM = 4, 32
# Energy of the codes, energy of the encoder's vectors, whether rare codes are replaced.
VARIANTS: dict[str, tuple[keras.Regularizer | None, keras.Regularizer | None, bool]] = {
    "baseline": (None, None, False),
    "codes 0.01": (MHE(0.01, scale="position", neuron_axis=0), None, False),
    **{f"vectors {factor:g}": (None, MHE(factor), False) for factor in (1, 10)},
    "replaced": (None, None, True),
}
_LENGTHS = ("one", "free")


class Codebook(keras.layers.Layer):
    """Replaces each vector by the nearest code. The gradient passes through as if nothing changed.

    The loss pulls codes to their vectors, and with a weight of 1/4, vectors to their codes.

    Args:
        codes: number of codes.
        unit: whether codes are scaled to length one.
        regularizer: regularizer of the kernel, of shape `(codes, dim)`, or None.
        replace: whether a code that is rarely the nearest is replaced by a vector of the batch.

    Source: van den Oord et al. (2017), Neural Discrete Representation Learning, NeurIPS, with
    their uniform initial codes.
    """

    def __init__(
        self, codes: int, unit: bool, regularizer: keras.Regularizer | None, replace: bool
    ) -> None:
        super().__init__(name="codebook")
        self.codes, self.unit, self.regularizer, self.replace = codes, unit, regularizer, replace

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            (self.codes, input_shape[-1]),
            initializer=keras.initializers.RandomUniform(-1 / self.codes, 1 / self.codes),
            regularizer=self.regularizer,
            name="kernel",
        )
        # Moving average of how often each code is the nearest; 1 is the mean of all codes.
        self.use = self.add_weight((self.codes,), "ones", trainable=False, name="use")

    def code_vectors(self) -> Any:
        """Returns the codes, `(codes, dim)`."""
        return (
            ops.normalize(self.kernel, axis=-1) if self.unit else ops.convert_to_tensor(self.kernel)
        )

    def nearest(self, vectors: Any) -> Any:
        """Returns the index of the nearest code of each vector."""
        codes = self.code_vectors()
        products = ops.matmul(vectors, ops.transpose(codes))
        return ops.argmax(products - ops.sum(ops.square(codes), axis=-1) / 2, axis=-1)

    def _replace_rare_codes(self, vectors: Any, index: Any) -> None:
        chosen = ops.reshape(ops.one_hot(index, self.codes), (-1, self.codes))
        use = 0.98 * self.use + 0.02 * self.codes * ops.mean(chosen, axis=0)
        rows = ops.reshape(vectors, (-1, vectors.shape[-1]))
        candidates = ops.take(rows, ops.arange(self.codes) % ops.shape(rows)[0], axis=0)
        rare = use < 0.1
        kept = ops.convert_to_tensor(self.kernel)
        self.kernel.assign(ops.where(rare[:, None], candidates, kept))
        self.use.assign(ops.where(rare, 1.0, use))

    def call(self, vectors: Any, training: bool = False) -> Any:
        stop = ops.stop_gradient
        index = self.nearest(vectors)
        codes = ops.take(self.code_vectors(), index, axis=0)
        if training:
            to_codes = ops.sum(ops.square(stop(vectors) - codes), axis=-1)
            to_vectors = ops.sum(ops.square(vectors - stop(codes)), axis=-1)
            self.add_loss(ops.mean(to_codes) + 0.25 * ops.mean(to_vectors))
            if self.replace:
                self._replace_rare_codes(stop(vectors), index)
        return vectors + stop(codes - vectors)


def autoencoder(
    variant: str, codes: int, unit: bool
) -> tuple[keras.Model, Codebook, keras.Sequential]:
    """Returns the model, its codebook, and the encoder from images to vectors."""
    regularizer, energy, replace = VARIANTS[variant]
    encoder = feature_network((8, 8, 1), SLOTS * DIM)
    encoder.add(keras.layers.Reshape((SLOTS, DIM)))
    if unit:
        encoder.add(keras.layers.UnitNormalization())
    codebook = Codebook(codes, unit, regularizer, replace)
    decoder = [
        keras.layers.Flatten(),
        keras.layers.Dense(128, "relu"),
        keras.layers.Dense(64, "sigmoid"),
    ]
    between = [] if energy is None else [Uniformity(energy)]
    return keras.Sequential([encoder, *between, codebook, *decoder]), codebook, encoder


def _squared_error(pixels: Any, outputs: Any) -> Any:
    return ops.sum(ops.square(pixels - outputs), axis=-1)


def use_metrics(index: np.ndarray, codes: int) -> dict[str, float]:
    """Returns how many codes are in use, and the exponential of the entropy of their use."""
    share = np.bincount(index, minlength=codes) / len(index)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-30)))
    return {"used codes %": 100 * float(np.mean(share > 0)), "perplexity": float(np.exp(entropy))}


def run(config: Config, source: str) -> Outcome:
    """Trains once, and measures on test images which codes are in use."""
    seed, optimizer, codes = int(config["seed"]), str(config["optimizer"]), int(config["codes"])
    if config["length"] not in _LENGTHS:
        raise InputError(f"Lengths are {', '.join(_LENGTHS)}. Received: {config['length']}")
    images = split_digits(seed)
    pixels, test_pixels = (x.reshape(len(x), -1) for x in (images.x, images.x_test))
    model, codebook, encoder = autoencoder(str(config["variant"]), codes, config["length"] == "one")
    passes = int(config["passes"])
    fit(model, images.x, pixels, seed, passes, loss=_squared_error, optimizer=optimizer)
    outputs = model.predict(images.x_test, batch_size=500, verbose=0)
    vectors = encoder.predict(images.x_test, batch_size=500, verbose=0)
    index = ops.convert_to_numpy(codebook.nearest(vectors)).ravel()
    return Outcome(
        {
            **use_metrics(index, codes),
            "error": float(np.mean(np.sum((outputs - test_pixels) ** 2, axis=1))),
            "energy of codes": float(hyperspherical_energy(codebook.kernel, neuron_axis=0)),
        }
    )


experiment = Experiment(
    "codebook",
    __doc__,
    run,
    tuple(VARIANTS),
    main_metrics=("used codes %", "perplexity", "error"),
    grid={"optimizer": ("adam",), "passes": (40,), "codes": (256,), "length": _LENGTHS},
    quick_grid={"passes": (2,), "codes": (16,), "length": ("one",)},
)
