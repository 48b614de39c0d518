"""What is said of a model: values against the functions they stand on, faults, what is left out."""

import json
import math
import re
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers
from probes import normals

from keras_mhe import HalfSpaceMHE, energy_report, hyperspherical_energy, reference, regularize

pytestmark = pytest.mark.once


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(12, 3, groups=2, name="grouped"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2DTranspose(6, 2, name="transposed"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="head"),
        ]
    )


def rows(model, *args, **options):
    return {row.name: row for row in energy_report(model, *args, **options).rows}


def test_a_row_for_each_kernel_with_its_neurons_and_their_space():
    report = energy_report(network())
    extents = {
        r.name: (r.role, r.half_space, r.groups, r.dimension, r.neurons) for r in report.rows
    }
    assert extents == {
        "grouped": ("hidden", True, 2, 18, 6),
        "transposed": ("hidden", True, 1, 48, 6),
        "head": ("output", False, 1, 6, 5),
    }
    assert list(report.left_out) == ["depthwise/kernel"]
    assert "do not compete" in report.left_out["depthwise/kernel"]


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "angular"])
def test_numbers_are_those_of_the_functions_behind_them(distance, half_space):
    model = network()
    row = rows(model, 1, distance=distance, half_space=half_space)["grouped"]
    options = {"distance": distance, "half_space": half_space}
    kernel = model.get_layer("grouped").kernel
    energy = float(hyperspherical_energy(kernel, 1, groups=2, **options))
    assert row.energy == pytest.approx(energy, rel=1e-5)
    uniform = reference.uniform_energy(6, 18, 1, softening="auto", **options)
    bound = reference.lower_bound(6, 18, 1, **options)
    assert (row.uniform, row.bound) == (uniform, bound)
    assert row.position == pytest.approx((row.energy - bound) / (uniform - bound))
    assert row.smallest <= row.mean <= row.largest
    assert len(row.nearest) == 12


def test_orthogonal_neurons_are_the_best_possible():
    model = keras.Sequential([keras.Input((9,)), layers.Dense(6, kernel_initializer="orthogonal")])
    [row] = energy_report(model, half_space=True).rows
    assert row.position == pytest.approx(0, abs=1e-4)
    assert (row.smallest, row.largest) == (pytest.approx(90, abs=1e-3),) * 2


@pytest.mark.slow
def test_new_kernels_of_resnet50_stand_where_random_neurons_do():
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None)
    report = energy_report(model, half_space=True)
    large = [row for row in report.rows if row.dimension >= 64 and row.neurons >= 64]
    assert len(large) == len(report.rows) == 54
    for row in large:
        assert abs(row.position - 1) < 0.1, row.name
    mean = np.mean([row.position for row in large])
    assert mean == pytest.approx(1, abs=0.02)


def test_faults_are_counted_and_said():
    model = network()
    kernel = model.get_layer("head").kernel
    value = normals(6, 5)
    value[:, 1], value[:, 2], value[2, 4] = 0, 3 * value[:, 0], np.nan
    kernel.assign(value)
    report = energy_report(model)
    row = report.rows[-1]
    assert (row.zero, row.duplicate, row.non_finite) == (1, 1, 1)
    assert row.faults == "1 zero, 1 duplicate, 1 not finite"
    assert math.isnan(row.energy)
    assert row.position is None
    assert report.summary["faulty_neurons"] == 3
    assert "! head: 1 zero, 1 duplicate, 1 not finite." in repr(report)
    # JSON has no NaN.
    assert report.to_dict()["rows"][-1]["energy"] is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_nothing_but_zeros_has_no_position():
    model = network()
    model.get_layer("head").kernel.assign(np.zeros((6, 5)))
    row = rows(model)["head"]
    assert (row.zero, row.position, row.smallest) == (5, None, None)


def test_layers_of_one_name_are_told_apart():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.several = [layers.Dense(4, name="same") for _ in range(3)]

        def call(self, x):
            return self.several[2](self.several[1](self.several[0](x)))

    model = Model()
    model(np.ones((1, 4)))
    assert list(rows(model)) == ["same", "same_1", "same_2"]


def test_nested_shared_and_attention_layers():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="shared")], name="inner")
    inputs = keras.Input((5, 8))
    x = layers.TimeDistributed(inner)(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(6, name="lstm")(inner(x[:, 0])[:, None])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    found = rows(model)
    assert (found["attention/query"].neurons, found["attention/query"].dimension) == (8, 8)
    assert (found["lstm/recurrent_kernel"].groups, found["lstm/recurrent_kernel"].neurons) == (4, 6)
    assert sum("shared" in name for name in found) == 1
    assert [row.role for row in found.values()].count("output") == 1


def test_a_report_changes_nothing():
    model = network()
    regularize(model)
    before = [np.array(w) for w in model.get_weights()]
    losses = [float(x) for x in model.losses]
    energy_report(model)
    assert [float(x) for x in model.losses] == losses
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_asks_for_layers_and_for_depthwise_filters():
    model = network()
    model_2 = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise")]
    )
    assert list(rows(model, where="head")) == ["head"]
    row = rows(model_2, where="depthwise")["depthwise"]
    assert (row.groups, row.dimension, row.neurons) == (4, 9, 4)
    with pytest.raises(ValueError, match="names no layer"):
        energy_report(model, where="tail")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_kernels_are_read_as_they_are(dtype):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype=dtype, name="dense")])
    kernel = keras.ops.cast(model.layers[0].kernel, "float32")
    expected = float(hyperspherical_energy(kernel, half_space=True))
    assert rows(model, half_space=True)["dense"].energy == pytest.approx(expected, rel=1e-4)


def test_kernels_with_lora_are_read_as_they_act():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="dense"), layers.Dense(3)])
    layer = model.layers[0]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normals(2, 6))
    expected = float(hyperspherical_energy(layer.kernel, half_space=True))
    assert rows(model)["dense"].energy == pytest.approx(expected, rel=1e-5)


def test_wrapped_layers_are_read():
    from keras_mhe import HypersphericalRegularization

    wrapped = HypersphericalRegularization(layers.Dense(6), HalfSpaceMHE(1.0), name="wrapped")
    model = keras.Sequential([keras.Input((8,)), wrapped, layers.Dense(3)])
    assert "wrapped" in rows(model)


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("nothing", {}, TypeError),
        (keras.Sequential([layers.Dense(3)]), {}, ValueError),
        (keras.Sequential([keras.Input((3,)), layers.ReLU()]), {}, ValueError),
        (keras.Sequential([keras.Input((3,)), layers.Dense(1)]), {}, ValueError),
        (network(), {"s": -1}, ValueError),
        (network(), {"distance": "far"}, ValueError),
        (network(), {"half_space": "yes"}, TypeError),
        (network(), {"softening": 3}, ValueError),
    ],
)
def test_bad_input_ends_in_a_sentence(model, options, error):
    with pytest.raises(error, match="Received: "):
        energy_report(model, **options)


@pytest.mark.slow
def test_the_page_of_the_docs_runs_and_says_what_comes_of_it(capsys):
    page = (Path(__file__).parents[1] / "docs" / "seeing.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    # One epoch does what ten do.
    exec("".join(code).replace("epochs=10", "epochs=1"), names)
    plt.close("all")
    printed = capsys.readouterr().out
    layers_of, layers_in = (re.findall(r"^ \w+ +[hf]s +\d+ +\d+", x, re.M) for x in (page, printed))
    assert len(layers_of) == 3
    assert layers_of == layers_in
    regularized, plain = (names[n] for n in ("regularized", "plain"))
    without, with_mhe = (energy_report(model).summary for model in (plain, regularized))
    assert with_mhe["energy_position"] < without["energy_position"]
