"""Codebook: nearest codes, gradients, codes that no vector uses, and metrics of use."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.once

codebook = pytest.importorskip("experiments.codebook", reason="only a checkout has experiments")


def layer(unit=True, regularizer=None, replace=False, kernel=None):
    result = codebook.Codebook(4, unit, regularizer, replace)
    result.build((None, 2, 3))
    if kernel is not None:
        result.kernel.assign(kernel)
    return result


@pytest.fixture
def kernel():
    return np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(6, 2, 3)).astype("float32")


@pytest.mark.parametrize("unit", [True, False])
def test_outputs_are_the_codes_at_the_smallest_distance(unit, kernel, vectors):
    codes = kernel / np.linalg.norm(kernel, axis=1, keepdims=True) if unit else kernel
    distances = np.linalg.norm(vectors[:, :, None] - codes, axis=-1)
    expected = codes[distances.argmin(axis=-1)]
    ours = layer(unit, kernel=kernel)
    for training in (False, True):
        np.testing.assert_allclose(ours(vectors, training=training), expected, atol=1e-6)


def train_one_step(book, vectors, rate=0.1):
    """Fits `vectors + shift -> codes` for one step of SGD, with a loss of slope one."""
    inputs = keras.Input((2, 3))
    shift = keras.layers.Dense(3, kernel_initializer="identity", name="shift")
    model = keras.Model(inputs, book(shift(inputs)))
    model.compile(keras.optimizers.SGD(rate), loss=lambda _, y: keras.ops.sum(y, axis=(1, 2)))
    model.fit(vectors, np.zeros(len(vectors)), batch_size=len(vectors), verbose=0)
    return shift


def test_the_gradient_of_the_output_passes_to_the_vectors(kernel, vectors):
    shift = train_one_step(layer(False, kernel=kernel), vectors)
    index = np.linalg.norm(vectors[:, :, None] - kernel, axis=-1).argmin(axis=-1)
    pull = 0.25 * 2 * np.mean(vectors - kernel[index], axis=(0, 1))
    # Each image has two vectors, so the slope of the loss is two.
    np.testing.assert_allclose(shift.bias, -0.1 * (2 + pull), rtol=1e-4)


# The vectors are positive, so the last code is never the nearest.
ONE_UNUSED = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -0.5]], "float32")


@pytest.mark.parametrize("energy", [False, True])
def test_a_code_without_vectors_moves_only_with_an_energy(energy, vectors):
    vectors = np.abs(vectors)
    regularizer = codebook.VARIANTS["codes 0.01"][0] if energy else None
    book = layer(False, regularizer, kernel=ONE_UNUSED)
    assert 3 not in np.asarray(book.nearest(vectors))
    train_one_step(book, vectors)
    moved = np.abs(np.asarray(book.kernel) - ONE_UNUSED).max(axis=1)
    assert (moved[3] > 0) == energy
    assert moved[:3].min() > 0


def test_a_rare_code_is_replaced_by_a_vector_of_the_batch(vectors):
    book = layer(False, replace=True, kernel=ONE_UNUSED)
    book.use.assign([1, 1, 1, 0.1])
    book(vectors, training=False)
    np.testing.assert_array_equal(book.kernel, ONE_UNUSED)
    book(np.abs(vectors), training=True)
    np.testing.assert_array_equal(book.kernel[:3], ONE_UNUSED[:3])
    assert np.asarray(book.kernel[3]).tolist() in np.abs(vectors).reshape(-1, 3).tolist()
    assert float(book.use[3]) == 1


@pytest.mark.parametrize("unit", [True, False])
def test_variants_start_from_the_same_weights(unit):
    found = []
    for variant in codebook.VARIANTS:
        keras.utils.set_random_seed(0)
        model, book, encoder = codebook.autoencoder(variant, 16, unit)
        model.build((None, 8, 8, 1))
        found.append([np.asarray(w) for w in model.trainable_weights])
        norms = np.linalg.norm(encoder(np.random.default_rng(0).random((5, 8, 8, 1))), axis=-1)
        assert np.allclose(norms, 1, atol=1e-4) == unit
        assert book.codes == 16
    for weights in found[1:]:
        for ours, theirs in zip(weights, found[0], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_metrics_of_use():
    even = codebook.use_metrics(np.arange(8) % 4, 8)
    assert even["used codes %"] == 50
    assert even["perplexity"] == pytest.approx(4)
    assert codebook.use_metrics(np.zeros(5, int), 8)["perplexity"] == pytest.approx(1)


def test_unknown_lengths_raise():
    config = {"variant": "baseline", "seed": 0, "optimizer": "adam", "codes": 4, "length": "two"}
    with pytest.raises(ValueError, match=r"Lengths are one, free\. Received: two"):
        codebook.run(config, "")
