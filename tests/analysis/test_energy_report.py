"""`energy_report`: its values, faulty neurons, and the kernels that it leaves out."""

import json
import math
import re
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import normals
from keras import layers

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


def rows_by_name(model, *args, **options):
    return {row.name: row for row in energy_report(model, *args, **options).rows}


def test_each_kernel_has_a_row_with_its_role_space_and_neurons():
    report = energy_report(network())
    found = {r.name: (r.role, r.half_space, r.groups, r.dimension, r.neurons) for r in report.rows}
    assert found == {
        "grouped": ("hidden", True, 2, 18, 6),
        "transposed": ("hidden", True, 1, 48, 6),
        "head": ("output", False, 1, 6, 5),
    }
    assert list(report.left_out) == ["depthwise/kernel"]
    assert "do not compete" in report.left_out["depthwise/kernel"]


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "angular"])
def test_values_match_the_energy_and_reference_functions(distance, half_space):
    model = network()
    row = rows_by_name(model, 1, distance=distance, half_space=half_space)["grouped"]
    options = {"distance": distance, "half_space": half_space}
    kernel = model.get_layer("grouped").kernel
    energy = float(hyperspherical_energy(kernel, 1, groups=2, **options))
    assert row.energy == pytest.approx(energy, rel=1e-5)
    uniform = reference.uniform_energy(6, 18, 1, softening="auto", **options)
    bound = reference.lower_bound(6, 18, 1, **options)
    assert (row.uniform_energy, row.lower_bound) == (uniform, bound)
    assert row.position == pytest.approx((row.energy - bound) / (uniform - bound))
    assert row.nearest_angle_min <= row.nearest_angle_mean <= row.nearest_angle_max
    assert len(row.nearest_angles) == 12


def test_orthogonal_neurons_have_position_zero():
    model = keras.Sequential([keras.Input((9,)), layers.Dense(6, kernel_initializer="orthogonal")])
    [row] = energy_report(model, half_space=True).rows
    assert row.position == pytest.approx(0, abs=1e-4)
    assert (row.nearest_angle_min, row.nearest_angle_max) == (pytest.approx(90, abs=1e-3),) * 2


@pytest.mark.slow
def test_initial_kernels_of_resnet50_have_positions_near_one():
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None)
    report = energy_report(model, half_space=True)
    large = [row for row in report.rows if row.dimension >= 64 and row.neurons >= 64]
    assert len(large) == len(report.rows) == 54
    for row in large:
        assert abs(row.position - 1) < 0.1, row.name
    mean = np.mean([row.position for row in large])
    assert mean == pytest.approx(1, abs=0.02)


def test_faulty_neurons_are_counted_and_printed():
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


def test_kernel_of_zeros_has_no_position():
    model = network()
    model.get_layer("head").kernel.assign(np.zeros((6, 5)))
    row = rows_by_name(model)["head"]
    assert (row.zero, row.position, row.nearest_angle_min) == (5, None, None)


def test_rows_of_layers_with_equal_names_are_numbered():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = [layers.Dense(4, name="same") for _ in range(3)]
            self.hidden.append(layers.Dense(4, name="same_1"))

        def call(self, x):
            for layer in self.hidden:
                x = layer(x)
            return x

    model = Model()
    model(np.ones((1, 4)))
    assert list(rows_by_name(model)) == ["same", "same_1", "same_2", "same_1_1"]


def test_nested_shared_attention_and_recurrent_layers_are_reported():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="shared")], name="inner")
    inputs = keras.Input((5, 8))
    x = layers.TimeDistributed(inner)(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(6, name="lstm")(inner(x[:, 0])[:, None])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    found = rows_by_name(model)
    assert (found["attention/query"].neurons, found["attention/query"].dimension) == (8, 8)
    assert (found["lstm/recurrent_kernel"].groups, found["lstm/recurrent_kernel"].neurons) == (4, 6)
    assert sum("shared" in name for name in found) == 1
    assert [row.role for row in found.values()].count("output") == 1


def test_report_does_not_change_weights_or_losses():
    model = network()
    regularize(model)
    before = [np.array(w) for w in model.get_weights()]
    losses = [float(x) for x in model.losses]
    energy_report(model)
    assert [float(x) for x in model.losses] == losses
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_selects_layers_and_depthwise_filters():
    model = network()
    depthwise = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise")]
    )
    assert list(rows_by_name(model, where="head")) == ["head"]
    row = rows_by_name(depthwise, where="depthwise")["depthwise"]
    assert (row.groups, row.dimension, row.neurons) == (4, 9, 4)
    with pytest.raises(ValueError, match="must name layers"):
        energy_report(model, where="tail")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_kernels_are_reported_as_stored(dtype):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype=dtype, name="dense")])
    kernel = keras.ops.cast(model.layers[0].kernel, "float32")
    expected = float(hyperspherical_energy(kernel, half_space=True))
    assert rows_by_name(model, half_space=True)["dense"].energy == pytest.approx(expected, rel=1e-4)


def test_report_of_a_layer_with_lora_is_that_of_the_effective_kernel():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="dense"), layers.Dense(3)])
    layer = model.layers[0]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(normals(2, 6))
    expected = float(hyperspherical_energy(layer.kernel, half_space=True))
    assert rows_by_name(model)["dense"].energy == pytest.approx(expected, rel=1e-5)


def test_wrapped_layers_are_reported():
    from keras_mhe import HypersphericalRegularization

    wrapped = HypersphericalRegularization(layers.Dense(6), HalfSpaceMHE(1.0), name="wrapped")
    model = keras.Sequential([keras.Input((8,)), wrapped, layers.Dense(3)])
    assert "wrapped" in rows_by_name(model)


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
def test_invalid_arguments_raise_a_clear_error(model, options, error):
    with pytest.raises(error, match="Received: "):
        energy_report(model, **options)


@pytest.mark.slow
def test_code_of_the_seeing_page_runs_and_gives_the_stated_results(capsys):
    page = (Path(__file__).parents[2] / "docs" / "seeing.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    # One epoch is enough here; the page trains for ten.
    exec("".join(code).replace("epochs=10", "epochs=1"), names)
    plt.close("all")
    printed = capsys.readouterr().out
    row = r"^ \w+ +(?:half|full)\*? +\d+(?: \* \d+)? "
    shown, measured = (re.findall(row, x, re.M) for x in (page, printed))
    # The table of the report, and that of the changes.
    assert len(shown) == 6
    assert shown == measured
    assert all(each.turned_mean > 0 for each in names["drift"].changes)
    regularized, plain = (names[n] for n in ("regularized", "plain"))
    without_mhe, with_mhe = (energy_report(model).summary for model in (plain, regularized))
    assert with_mhe["position_mean"] < without_mhe["position_mean"]
