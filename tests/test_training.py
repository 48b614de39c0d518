"""Training with `model.fit` as users call it, and cases that are numerically difficult."""

import functools

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient
from sklearn.datasets import load_digits

from keras_mhe import MHE, HalfSpaceMHE, hyperspherical_energy


def digits(samples, seed=0):
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16).astype("float32"), labels[order]
    return (images[:samples], labels[:samples]), (images[samples:], labels[samples:])


def convolutional_model(regularizer):
    decay = keras.regularizers.L2(5e-4)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", kernel_regularizer=regularizer + decay),
            keras.layers.Conv2D(24, 3, activation="relu", kernel_regularizer=regularizer + decay),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, kernel_regularizer=MHE(10.0, s=0)),
        ]
    )
    return model


def fit(model, samples=256, epochs=3, **options):
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    (images, labels), _ = digits(samples)
    return model.fit(images, labels, batch_size=64, epochs=epochs, shuffle=False, verbose=0)


class TestFit:
    @pytest.mark.slow
    def test_compiled_graph_and_eager_training_agree(self):
        runs = {}
        for options in ({"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}):
            keras.utils.set_random_seed(0)
            history = fit(convolutional_model(HalfSpaceMHE(1.0)), samples=128, epochs=2, **options)
            runs[str(options)] = history.history["loss"]
        first, *others = runs.values()
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-4)

    def test_reported_loss_contains_the_energies(self):
        model = convolutional_model(HalfSpaceMHE(1.0))
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        (images, labels), _ = digits(100)
        total = model.evaluate(images, labels, batch_size=100, verbose=0)
        data_loss = model.loss(labels, model.predict(images, verbose=0))
        assert total == pytest.approx(float(data_loss) + float(sum(model.losses)), rel=1e-4)

    @pytest.mark.parametrize("half_space", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_training_lowers_the_energy(self, half_space):
        regularizer = MHE(10.0, half_space=half_space)
        # Few inputs crowd the neurons: Glorot kernels of many inputs are nearly uniform at first.
        layer = keras.layers.Dense(12, use_bias=False, kernel_regularizer=regularizer)
        model = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(4), layer, keras.layers.Dense(10)]
        )
        before = float(hyperspherical_energy(layer.kernel, half_space=half_space))
        fit(model, epochs=10)
        after = float(hyperspherical_energy(layer.kernel, half_space=half_space))
        assert after < 0.9 * before

    @pytest.mark.parametrize(
        "policy",
        ["mixed_float16"]
        + [
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("float16", "bfloat16", "mixed_bfloat16")
        ],
    )
    def test_every_dtype_policy_can_be_trained(self, policy):
        keras.utils.set_random_seed(0)
        regularizer = HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4)
        layers = [
            keras.layers.Dense(16, "relu", kernel_regularizer=regularizer, dtype=policy),
            keras.layers.Dense(10, kernel_regularizer=MHE(), dtype=policy),
        ]
        history = fit(keras.Sequential([keras.Input((64,)), *layers])).history["loss"]
        assert np.all(np.isfinite(history))
        assert history[-1] < history[0]

    @pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
    def test_models_in_half_precision_can_be_trained(self, dtype):
        policy = keras.config.dtype_policy()
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        try:
            history = fit(convolutional_model(HalfSpaceMHE(1.0))).history["loss"]
        finally:
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy(policy)
        assert np.all(np.isfinite(np.array([float(loss) for loss in history])))

    def test_training_of_a_loaded_model_continues_exactly(self, tmp_path):
        keras.utils.set_random_seed(0)
        model = convolutional_model(HalfSpaceMHE(1.0))
        fit(model)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        (images, labels), _ = digits(256)
        for each in (model, loaded):
            each.fit(images, labels, batch_size=64, shuffle=False, verbose=0)
        for expected, got in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


class TestStability:
    @pytest.mark.slow
    @pytest.mark.once
    def test_ten_classes_in_two_dimensions_train_with_factor_ten(self):
        """The papers' formula diverges here. With softening, the regularizer costs no accuracy.

        Kernels are initialized as in the papers, from N(0, 2 / inputs).
        """
        (images, labels), (test_images, test_labels) = digits(1000)

        def accuracy(regularizer, seed, epochs=40):
            keras.utils.set_random_seed(seed)
            dense = functools.partial(keras.layers.Dense, kernel_initializer="he_normal")
            model = keras.Sequential(
                [
                    keras.Input((64,)),
                    dense(128, activation="relu"),
                    dense(128, activation="relu"),
                    dense(2),
                    dense(10, use_bias=False, kernel_regularizer=regularizer),
                ]
            )
            steps = epochs * -(-len(labels) // 32)
            rate = keras.optimizers.schedules.CosineDecay(0.02, steps)
            model.compile(
                keras.optimizers.SGD(rate, momentum=0.9),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
                steps_per_execution=32,
            )
            losses = model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0).history[
                "loss"
            ]
            assert np.all(np.isfinite(losses))
            return model.evaluate(test_images, test_labels, verbose=0)[1]

        seeds = range(2)
        baseline = np.mean([accuracy(None, seed) for seed in seeds])
        regularized = np.mean([accuracy(MHE(10.0), seed) for seed in seeds])
        assert regularized > baseline - 0.01

    @pytest.mark.parametrize(
        "regularizer",
        [HalfSpaceMHE(1.0)]
        + [pytest.param(each, marks=pytest.mark.slow) for each in (MHE(1.0), MHE(1.0, s=0))],
    )
    def test_tiny_neuron_stays_shorter_than_the_others(self, regularizer):
        """One neuron of norm 1e-6 among 64 ordinary ones stays shorter than they are."""
        kernel = np.random.default_rng(0).standard_normal((576, 64)).astype("float32")
        kernel *= np.sqrt(2 / 576)
        kernel[:, 0] *= 1e-6 / np.linalg.norm(kernel[:, 0])
        variable = keras.Variable(kernel)
        optimizer = keras.optimizers.SGD(0.1)
        for _ in range(100):
            _, gradient = value_and_gradient(regularizer, variable.value)
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
            norms = np.linalg.norm(keras.ops.convert_to_numpy(variable.value), axis=0)
            assert norms[0] < norms[1:].min()
        assert np.all(np.isfinite(norms))
