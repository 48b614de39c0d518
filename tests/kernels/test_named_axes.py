"""`axes` names the neurons of layers that do not tell them, such as vector quantizers."""

import keras
import numpy as np
import pytest
from helpers import energy_value
from keras import layers, ops
from sklearn.datasets import load_digits
from small_models import HALF, convolutional_model, row_of, sum_of_losses

from keras_mhe import (
    MHE,
    MHP,
    EnergyMonitor,
    HalfSpaceMHE,
    HypersphericalRegularization,
    energy_report,
    regularize,
)
from keras_mhe.kernels import find_kernels, layer_kernels
from keras_mhe.kernels._named_axes import with_named_axes


@keras.saving.register_keras_serializable(package="test_named_axes")
class VectorQuantizer(layers.Layer):
    """The quantizer of Keras's VQ-VAE example: codes are columns, gradients pass straight through.

    The codes move to the inputs that they replace, and these inputs move to the codes.
    """

    def __init__(self, codes=24, dim=8, **kwargs):
        super().__init__(**kwargs)
        self.codes, self.dim = codes, dim

    def build(self, shape):
        self.embeddings = self.add_weight(
            shape=(self.dim, self.codes), initializer="random_uniform", name="embeddings"
        )

    def call(self, x):
        distances = ops.sum(self.embeddings**2, axis=0) - 2 * ops.matmul(x, self.embeddings)
        chosen = ops.one_hot(ops.argmin(distances, axis=-1), self.codes)
        codes = ops.matmul(chosen, ops.transpose(self.embeddings))
        self.add_loss(ops.mean((ops.stop_gradient(codes) - x) ** 2))
        self.add_loss(ops.mean((codes - ops.stop_gradient(x)) ** 2))
        return x + ops.stop_gradient(codes - x)

    def get_config(self):
        return {**super().get_config(), "codes": self.codes, "dim": self.dim}


def autoencoder():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(8, name="features"),
            VectorQuantizer(name="quantizer"),
            layers.Dense(64, name="decoder"),
        ]
    )


def codes_of(model):
    return model.get_layer("quantizer").embeddings


def test_codebook_is_skipped_with_a_reason_that_names_the_argument():
    model = autoencoder()
    row = row_of(regularize(model), "quantizer")
    assert row.action == "skipped"
    assert '`axes={"quantizer": 0}` for rows, `axes={"quantizer": -1}` for columns' in row.note
    assert energy_report(model).left_out == {"quantizer/embeddings": row.note}
    assert codes_of(model).regularizer is None


@pytest.mark.parametrize("axis", [0, -1, [1]])
def test_codebook_is_regularized_along_the_named_axis(axis):
    model = autoencoder()
    table = regularize(model, where="quantizer", axes={"quantizer": axis})
    row = row_of(table, "quantizer")
    expected = energy_value(codes_of(model), neuron_axis=axis)
    assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)
    assert {row.neurons, row.dimension} == {24, 8}
    assert (row.neurons == 8) == (axis == 0)
    [row] = energy_report(model, where="quantizer", axes={"quantizer": axis}).rows
    assert row.energy == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_codes_spread_during_training_and_the_saved_model_keeps_their_energy(tmp_path):
    images = (load_digits().data[:512] / 16).astype("float32")
    codes = {}
    for factor in (0.0, 1.0):
        model = autoencoder()
        table = regularize(
            model, HalfSpaceMHE(factor), None, where="quantizer", axes={"quantizer": -1}
        )
        assert not row_of(table, "quantizer").saved  # the layer has no argument for a regularizer
        model.compile(keras.optimizers.Adam(0.01), "mse")
        monitor = EnergyMonitor(axes={"quantizer": -1}, where="quantizer")
        history = model.fit(images, images, epochs=3, verbose=0, callbacks=[monitor])
        assert np.isfinite(history.history["loss"]).all()
        codes[factor] = energy_value(codes_of(model), **HALF)
        assert monitor.history[-1]["rows"][0]["energy"] == pytest.approx(codes[factor], rel=1e-5)
    assert codes[1.0] < codes[0.0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    regularize(loaded, HalfSpaceMHE(1.0), None, where="quantizer", axes={"quantizer": -1})
    assert sum_of_losses(loaded) == pytest.approx(codes[1.0], rel=1e-5)


def test_wrapper_needs_the_axis_in_the_regularizer():
    layer = VectorQuantizer()
    layer.build((None, 8))
    [kernel] = layer_kernels(layer)
    assert kernel.neuron_axis is None
    with pytest.raises(ValueError, match="`neuron_axis=0` for rows, `neuron_axis=-1` for columns"):
        HypersphericalRegularization(layer, MHE()).build((None, 8))
    wrapper = HypersphericalRegularization(layer, MHE(neuron_axis=-1))
    wrapper.build((None, 8))
    assert sum_of_losses(wrapper) == pytest.approx(energy_value(layer.embeddings), rel=1e-5)
    # The same in a model: a regularizer that names the axis needs no `axes`.
    model = autoencoder()
    regularize(model, HalfSpaceMHE(neuron_axis=-1), where="quantizer")
    expected = energy_value(codes_of(model), **HALF)
    assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)


def test_a_regularizer_that_learns_gets_the_named_axis_in_its_wrapper():
    model = autoencoder()
    wrapped = regularize(model, MHP(), None, where="quantizer", axes={"quantizer": -1}).model
    assert tuple(wrapped.get_layer("quantizer").state["pole"].shape) == (8,)


def test_named_axes_replace_the_axes_and_groups_of_a_known_layer():
    model = convolutional_model()
    axes = {"grouped": -1, "transposed": -1, "depthwise": [-2, -1], "head": 0}
    table = regularize(model, HalfSpaceMHE(1.0, neuron_axis=0), MHE(1.0), axes=axes)
    get = model.get_layer
    values = [energy_value(get(name).kernel, **HALF) for name in ("grouped", "transposed")]
    values += [energy_value(get("depthwise").kernel, neuron_axis=(-2, -1), **HALF)]
    values += [energy_value(get("head").kernel, neuron_axis=0)]
    losses = [float(row.regularizer(get(row.layer).kernel)) for row in table.rows if row.neurons]
    decay = 0.01 * float(ops.sum(get("grouped").kernel ** 2))
    assert sum(losses) - decay == pytest.approx(sum(values), rel=1e-4)
    assert {row.layer for row in table.rows if row.neurons} == set(axes)


def test_attention_has_named_axes_for_all_projections_or_none():
    inputs = keras.Input((6, 8))
    attended = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(attended))
    table = regularize(model, output=MHE(0.0), axes={"query": 0})
    notes = [row.note for row in table.rows if row.layer == "attention"]
    assert notes == ["`axes` must name the whole layer, attention"] * 4
    regularize(model, output=None, axes={"attention": -1})
    kernels = [found.kernel.variable for found in find_kernels(model.get_layer("attention"))]
    assert len(kernels) == 4
    expected = sum(energy_value(kernel, neuron_axis=-1, **HALF) for kernel in kernels)
    assert sum_of_losses(model) == pytest.approx(expected, rel=1e-5)


def test_axes_that_do_not_fit_the_kernel_are_a_reason_to_skip_it():
    model = autoencoder()
    rows = regularize(model, axes={"quantizer": 2, "features": [0, 1]}).rows
    notes = {row.layer: row.note for row in rows if row.action == "skipped"}
    assert notes["quantizer"] == "its kernel of shape (8, 24) has no axis 2"
    assert notes["features"].startswith("no axis of its kernel is left for")


@pytest.mark.once
@pytest.mark.parametrize("call", [regularize, energy_report])
@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"nothing": 0}, ValueError, "`axes` must name layers with a kernel.*quant.*'nothing'"),
        ({"quantizer": None}, TypeError, "axes={'quantizer': None}"),
        ({"quantizer": "last"}, TypeError, "axes={'quantizer': 'last'}"),
        ({"quantizer": [0, 0]}, TypeError, "different axes"),
        ({"quantizer": []}, TypeError, "Expected a dict"),
        ({3: 0}, TypeError, "axes={3: 0}"),
        (-1, TypeError, "axes=-1"),
    ],
)
def test_invalid_axes_raise_a_clear_error(call, axes, error, message):
    model = autoencoder()
    with pytest.raises(error, match=message):
        call(model, axes=axes)
    assert all(weight.regularizer is None for weight in model.weights)


@pytest.mark.once
def test_the_last_name_of_a_kernel_counts():
    model = keras.Sequential([keras.Input((64,)), autoencoder()], name="outer")
    inner = model.layers[0].name
    found = with_named_axes(find_kernels(model), {inner: 0, "quantizer": -1})
    assert {f.path.split("/")[-1]: f.kernel.neuron_axis for f in found} == {
        "hidden": (0,),
        "features": (0,),
        "quantizer": (-1,),
        "decoder": (0,),
    }
