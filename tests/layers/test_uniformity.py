"""`Uniformity`: the energy of a batch in training, with labels, masks, saving and precision."""

import keras
import numpy as np
import pytest
from helpers import normals, on_compiled_and_other_steps
from keras import layers

from keras_mhe import (
    MGD,
    MHE,
    MHP,
    MHS,
    CoMHE,
    HalfSpaceMHE,
    Uniformity,
    batch_energy,
    energy_report,
    regularize,
)
from keras_mhe.energies._programs import _lookup
from keras_mhe.regularizers import AttentionEnergy

SIZES = [16, 16, 8]


def scalar(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def only_loss(layer):
    [loss] = layer.losses
    return scalar(loss)


def model_with(uniformity, labels=None):
    """A classifier of 8 inputs whose 4 features get the energy."""
    inputs = keras.Input((8,))
    features = layers.Dense(4, use_bias=False, name="features")(inputs)
    features = uniformity(features) if labels is None else uniformity(features, labels=labels)
    outputs = layers.Dense(3)(features)
    return keras.Model(inputs if labels is None else [inputs, labels], outputs)


def compiled(model, **options):
    # Without steps, the loss of an epoch is a function of the first weights.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, **options)
    return model


class TestLoss:
    def test_loss_is_the_weighted_energy_in_training_only(self):
        x, layer = normals(7, 4), Uniformity(HalfSpaceMHE(3.0, s=1))
        outputs = layer(x, training=True)
        np.testing.assert_array_equal(outputs, x)
        assert only_loss(layer) == pytest.approx(3 * scalar(batch_energy(x, s=1, half_space=True)))
        layer(x)
        assert not layer.losses
        layer(x, training=False)
        assert not layer.losses

    @pytest.mark.parametrize(
        ("measure", "half_space", "n"),
        [(None, False, 7), ("log", True, 7), ("angle", False, 7), ("squared", True, 1)],
    )
    def test_separation_is_that_of_neurons_in_rows(self, measure, half_space, n):
        x, options = normals(7, 4)[:n], {"measure": measure, "half_space": half_space}
        layer, bare = Uniformity(MHS(3.0, **options)), MHS(3.0, neuron_axis=0, **options)
        layer(x, training=True)
        assert only_loss(layer) == pytest.approx(scalar(bare(x)), rel=1e-5)
        # Points that do not count may be anything.
        padded = np.concatenate([x, x[:1], np.full((1, 4), np.nan, "float32")])
        layer(padded, mask=np.arange(n + 2) < n, training=True)
        assert only_loss(layer) == pytest.approx(scalar(bare(x)), rel=1e-5)

    def test_factor_can_change(self):
        x, layer = normals(7, 4), Uniformity(MHE(3.0))
        layer.factor.assign(0.5)
        layer(x, training=True)
        assert only_loss(layer) == pytest.approx(0.5 * scalar(batch_energy(x)))

    def test_mask_of_an_embedding_leaves_points_out(self):
        tokens = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
        embedding, layer = layers.Embedding(6, 4, mask_zero=True), Uniformity(MHE())
        outputs = layer(embedding(tokens), training=True)
        expected = scalar(batch_energy(keras.ops.convert_to_numpy(embedding.embeddings)[1:]))
        assert only_loss(layer) == pytest.approx(expected, rel=1e-5)
        assert outputs.shape == (2, 4, 4)

    def test_gradient_does_not_depend_on_bounded(self):
        x = 1e-3 * normals(7, 4)
        for bounded in (True, False):
            layer = Uniformity(MHE(100.0, bounded=bounded))
            layer(x, training=True)
            assert only_loss(layer) == pytest.approx(100 * scalar(batch_energy(x)), rel=1e-5)


class TestTraining:
    @on_compiled_and_other_steps
    @pytest.mark.parametrize(
        ("regularizer", "by_classes"),
        [(MHE(2.0), False), (MHE(2.0), True), (MHS(2.0, measure="log"), False)],
        ids=["MHE", "MHE-classes", "MHS"],
    )
    def test_epoch_with_a_smaller_last_batch(self, jit_compile, regularizer, by_classes):
        x, y = normals(sum(SIZES), 8), np.arange(sum(SIZES)) % 3
        labels = keras.Input((), dtype="int32") if by_classes else None
        model = compiled(model_with(Uniformity(regularizer), labels), jit_compile=jit_compile)
        inputs = [x, y] if by_classes else x
        without = model.evaluate(inputs, y, batch_size=16, verbose=0)
        before = _lookup.cache_info().currsize
        history = model.fit(inputs, y, batch_size=16, shuffle=False, verbose=0).history
        assert _lookup.cache_info().currsize - before <= 2
        features = x @ keras.ops.convert_to_numpy(model.get_layer("features").kernel)
        parts = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
        losses = []
        for part in parts:
            layer = Uniformity(regularizer)
            layer(features[part], labels=y[part] if by_classes else None, training=True)
            losses.append(only_loss(layer))
        expected = without + np.average(losses, weights=SIZES)
        assert history["loss"][0] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.slow
    def test_training_spreads_features(self):
        x, y = np.abs(normals(64, 8)), np.arange(64) % 3
        before, after = [], []
        for energies, factor in ((before, 0.0), (after, 10.0)):
            keras.utils.set_random_seed(0)
            model = model_with(Uniformity(MHE(factor)))
            optimizer = keras.optimizers.Adam(0.02)
            model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            model.fit(x, y, epochs=15, verbose=0)
            features = keras.Model(model.inputs, model.get_layer("features").output)
            energies.append(scalar(batch_energy(features.predict(x, verbose=0))))
        assert after[0] < 0.8 * before[0]

    def test_energies_stay_float32_in_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            layer = Uniformity(MHE(1.0))
            model = compiled(model_with(layer))
        finally:
            keras.config.set_dtype_policy("float32")
        x, y = normals(24, 8), np.arange(24) % 3
        history = model.fit(x, y, batch_size=16, verbose=0).history
        assert np.isfinite(history["loss"][0])
        features = keras.ops.cast(normals(7, 4), "bfloat16")
        outputs = layer(features, training=True)
        assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
        assert keras.backend.standardize_dtype(layer.losses[0].dtype) == "float32"
        assert only_loss(layer) == pytest.approx(scalar(batch_energy(features)), rel=1e-6)


class TestSaving:
    def test_saved_model_keeps_regularizer_and_factor(self, tmp_path):
        model = compiled(model_with(Uniformity(MHE(2.0, s=1), name="spread")))
        model.get_layer("spread").factor.assign(5.0)
        model.save(tmp_path / "model.keras")
        layer = keras.saving.load_model(tmp_path / "model.keras").get_layer("spread")
        assert layer.regularizer.get_config() == MHE(2.0, s=1).get_config()
        assert float(layer.factor) == 5.0

    def test_clone_is_equal(self):
        layer = Uniformity(MHE(2.0))
        clone = Uniformity.from_config(layer.get_config())
        assert clone.get_config() == layer.get_config()

    def test_regularize_and_reports_ignore_the_layer(self):
        model = model_with(Uniformity(MHE(2.0)))
        assert len(regularize(model).rows) == 2
        assert len(energy_report(model).rows) == 2


class TestErrors:
    @pytest.mark.parametrize(
        "regularizer",
        [
            "l2",
            None,
            CoMHE(),
            MGD(),
            MHP(),
            MHE() + keras.regularizers.L2(1.0),
            AttentionEnergy(MHE(), [(2, 4)]),
        ],
        ids=["name", "none", "CoMHE", "MGD", "MHP", "sum", "AttentionEnergy"],
    )
    def test_regularizer_must_have_an_energy_of_batches(self, regularizer):
        with pytest.raises(TypeError, match=r"Expected `MHE\(...\)`, `HalfSpaceMHE\(...\)` or"):
            Uniformity(regularizer)

    @pytest.mark.parametrize(
        "options", [{"neuron_axis": -1}, {"groups": 2}, {"sample": 8}, {"scale": "position"}]
    )
    def test_options_without_meaning_are_refused(self, options):
        [name] = options
        with pytest.raises(ValueError, match=f"Argument `{name}` of a regularizer has no meaning"):
            Uniformity(MHE(**options))

    def test_rows_are_points(self):
        assert Uniformity(MHE(neuron_axis=0, groups=1)).regularizer.neuron_axis == 0

    @pytest.mark.parametrize(
        "regularizer",
        [
            MHE(neuron_axis=0),
            CoMHE(),
            MHE() + keras.regularizers.L2(1.0),
            AttentionEnergy(MHE(), [(2, 4)]),
        ],
        ids=["MHE", "CoMHE", "sum", "AttentionEnergy"],
    )
    def test_activity_regularizers_are_refused(self, regularizer):
        """Keras 3.12 does not divide activity losses by the batch size, and Keras 3.15 does."""
        layer = layers.Dense(4, activity_regularizer=regularizer)
        with pytest.raises(ValueError, match=r"call `keras_mhe\.Uniformity\(\.\.\.\)` on the"):
            layer(normals(7, 8))
