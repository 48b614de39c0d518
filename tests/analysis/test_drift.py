"""`energy_report(model, against=...)`: turns, matching of kernels, and what cannot be compared."""

import math

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import MHP, energy_report, regularize
from keras_mhe.analysis import DriftReport, Report


def every_kind_of_layer():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(12, 3, groups=2, name="grouped")(inputs)
    x = layers.Conv2DTranspose(6, 2, name="transposed")(x)
    x = layers.Reshape((49, 6))(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(5, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def dense_model(*names, units=6):
    hidden = [layers.Dense(units, name=name) for name in names]
    return keras.Sequential([keras.Input((units,)), *hidden])


def changed(model, rng):
    """A copy of a model with other weights, as after training."""
    copy = keras.models.clone_model(model)
    copy.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return copy


def array(kernel):
    return keras.ops.convert_to_numpy(kernel).astype("float64")


def turn(before, after):
    """The angle between two neurons, in another way: from the part of one across the other."""
    u, v = np.ravel(before), np.ravel(after)
    along = np.dot(u, v) / np.linalg.norm(u)
    across = np.linalg.norm(v - along * u / np.linalg.norm(u))
    return math.degrees(math.atan2(across, along))


def turns_of(drift):
    return {each.name: each.turns for each in drift.changes}


def test_turns_are_the_angles_between_the_neurons_of_each_kind_of_layer():
    before = every_kind_of_layer()
    after = changed(before, np.random.default_rng(0))
    found = turns_of(energy_report(after, against=before))
    neurons = {
        "grouped": lambda k: [k[..., j] for j in range(12)],
        "transposed": lambda k: [k[:, :, j] for j in range(6)],
        "head": lambda k: list(k.T),
    }
    for name, of in neurons.items():
        pairs = [of(array(model.get_layer(name).kernel)) for model in (before, after)]
        expected = [turn(*pair) for pair in zip(*pairs, strict=True)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
    queries = [array(model.get_layer("attention")._query_dense.kernel) for model in (before, after)]
    expected = [turn(*(q[:, h, k] for q in queries)) for h in range(2) for k in range(4)]
    np.testing.assert_allclose(found["attention/query"], expected, rtol=1e-9)
    cells = [array(model.get_layer("lstm").cell.recurrent_kernel) for model in (before, after)]
    expected = [turn(*(cell[:, j] for cell in cells)) for j in range(20)]
    np.testing.assert_allclose(found["lstm/recurrent_kernel"], expected, rtol=1e-9)


def test_numbers_before_and_after_are_those_of_both_reports():
    before = every_kind_of_layer()
    after = changed(before, np.random.default_rng(0))
    drift = energy_report(after, 1, distance="angular", softening=0.1, against=before)
    reports = [
        energy_report(model, 1, distance="angular", softening=0.1) for model in (before, after)
    ]
    assert isinstance(drift, DriftReport)
    assert drift.unmatched == {}
    assert [each.before.to_dict() for each in drift.changes] == reports[0].to_dict()["rows"]
    assert [each.after.to_dict() for each in drift.changes] == reports[1].to_dict()["rows"]
    assert drift.to_dict()["rows"] == reports[1].to_dict()["rows"]
    for each in drift.changes:
        assert each.change("energy") == each.after.energy - each.before.energy


def test_a_model_does_not_differ_from_itself():
    model = every_kind_of_layer()
    for each in energy_report(model, against=model).changes:
        assert not each.turns.any()
        assert each.change("energy") == each.change("nearest_angle_mean") == 0


def test_models_files_and_reports_give_the_same_comparison(tmp_path):
    before = dense_model("hidden", "head")
    after = changed(before, np.random.default_rng(0))
    before.save(tmp_path / "before.keras")
    drift = energy_report(after, against=before)
    for path in (tmp_path / "before.keras", str(tmp_path / "before.keras")):
        assert energy_report(after, against=path).to_dict() == drift.to_dict()
    from_report = energy_report(after, against=energy_report(before))
    assert "unknown, because a report holds no neurons" in " ".join(repr(from_report).split())
    for one, other in zip(from_report.changes, drift.changes, strict=True):
        assert (one.turns, one.turned_mean, one.turned_max) == (None, None, None)
        assert one.before.to_dict() == other.before.to_dict()


@pytest.mark.slow
def test_fine_tuning_turns_trained_kernels_and_no_frozen_ones():
    before = dense_model("frozen", "hidden", "head")
    after = keras.models.clone_model(before)
    after.set_weights(before.get_weights())
    after.get_layer("frozen").trainable = False
    after.compile("sgd", "mse")
    after.fit(normals(32, 6), normals(32, 6, seed=1), verbose=0)
    found = turns_of(energy_report(after, against=before))
    assert not found["frozen"].any()
    assert found["hidden"].all()
    assert found["head"].all()


def test_a_neuron_that_changes_sign_has_turned_by_180_degrees_in_half_space_too():
    before = dense_model("hidden", "head")
    after = keras.models.clone_model(before)
    after.set_weights([-w if w.ndim == 2 else w for w in before.get_weights()])
    for each in energy_report(after, half_space=True, against=before).changes:
        np.testing.assert_array_equal(each.turns, 180)
        assert each.change("energy") == 0


def test_neurons_without_a_direction_have_no_turn():
    before = dense_model("hidden", "head")
    after = keras.models.clone_model(before)
    after.set_weights(before.get_weights())
    value = normals(6, 6)
    value[:, 0], value[2, 1] = 0, np.inf
    after.get_layer("hidden").kernel.assign(value)
    before.get_layer("hidden").kernel.assign(np.where(np.arange(6) == 2, 0, normals(6, 6, seed=1)))
    drift = energy_report(after, against=before)
    change = drift.changes[0]
    assert np.isnan(change.turns).tolist() == [True, True, True, False, False, False]
    assert change.turned_mean == pytest.approx(np.mean(change.turns[3:]))
    assert change.turned_max == np.max(change.turns[3:])
    assert change.to_dict()["undirected"] == 3
    assert change.change("energy") is None
    assert "! hidden before: 1 zero." in repr(drift)
    assert "! hidden: 1 zero, 1 not finite." in repr(drift)


class TestMatching:
    def test_names_decide_even_if_the_order_differs(self):
        before, after = dense_model("a", "b", "head"), dense_model("b", "a", "head")
        for name in "ab":
            after.get_layer(name).set_weights(before.get_layer(name).get_weights())
        drift = energy_report(after, against=before)
        assert drift.note == ""
        found = turns_of(drift)
        assert not found["a"].any()
        assert not found["b"].any()

    def test_the_order_decides_if_names_differ_but_all_sizes_are_equal(self):
        before, after = dense_model("a", "b", "head"), dense_model("b", "c", "head")
        after.set_weights(before.get_weights())
        drift = energy_report(after, against=before)
        assert "matched by their order: b was a, and 1 more." in drift.note
        assert "matched by their order" in " ".join(repr(drift).split())
        assert not any(turns.any() for turns in turns_of(drift).values())
        assert [each.to_dict()["name_before"] for each in drift.changes] == ["a", "b", "head"]
        assert energy_report(after, against=energy_report(before)).note == drift.note

    @pytest.mark.parametrize("of_report", [False, True])
    def test_numbers_in_names_do_not_matter_if_another_layer_is_new(self, of_report):
        before = dense_model("dense", "dense_1", "dense_2", "old_head")
        after = dense_model("dense_7", "dense_8", "dense_9", "new_head")
        after.add(layers.Dense(4, name="dense_10"))
        for ours, theirs in zip(after.layers, before.layers, strict=False):
            ours.set_weights(theirs.get_weights())
        against = energy_report(before, half_space=True) if of_report else before
        drift = energy_report(after, against=against, half_space=True)
        assert "matched by their order: dense_7 was dense, and 2 more." in drift.note
        named = {each.name: each.before.name for each in drift.changes}
        assert named == {"dense_7": "dense", "dense_8": "dense_1", "dense_9": "dense_2"}
        assert all(each.change("energy") == 0 for each in drift.changes)
        assert drift.unmatched == {
            "new_head/kernel": "only after",
            "dense_10/kernel": "only after",
            "old_head/kernel": "only before",
        }

    def test_equal_names_come_before_the_order(self):
        before = dense_model("block_1", "block_2", "block_3", "head")
        after = dense_model("block_2", "block_3", "other")
        for name in ("block_2", "block_3"):
            after.get_layer(name).set_weights(before.get_layer(name).get_weights())
        drift = energy_report(after, against=before)
        assert not any(each.turns.any() for each in drift.changes)
        assert list(drift.unmatched) == ["other/kernel", "block_1/kernel", "head/kernel"]

    def test_kernels_without_a_counterpart_are_listed_with_the_reason(self):
        before, after = dense_model("same", "gone", "x"), dense_model("same", "new")
        before.add(layers.Dense(5, name="head"))
        after.add(layers.Dense(4, name="head"))
        drift = energy_report(after, against=before)
        assert [each.name for each in drift.changes] == ["same"]
        assert drift.unmatched == {
            "new/kernel": "only after",
            "head/kernel": "shape (6, 5) before and (6, 4) after",
            "gone/kernel": "only before",
            "x/kernel": "only before",
        }
        assert "Not compared, only before: gone, x." in repr(drift)
        assert [row.name for row in drift.rows] == ["same", "new", "head"]
        of_report = energy_report(after, against=energy_report(before)).unmatched
        assert of_report["head/kernel"] == "neurons 5 before and 4 after"

    def test_kernels_of_one_shape_with_neurons_on_other_axes_are_not_compared(self):
        before, after = (
            keras.Sequential(
                [keras.Input((8, 8, 4)), kind(4, 3, name="a"), layers.Conv2D(4, 1, name="b")]
            )
            for kind in (layers.Conv2D, layers.Conv2DTranspose)
        )
        drift = energy_report(after, against=before)
        assert drift.unmatched == {"a/kernel": "other axes or groups of neurons before"}

    def test_kernels_that_could_not_be_measured_before_are_listed(self):
        before, after = dense_model("hidden", "head"), dense_model("hidden", "head")
        before.get_layer("hidden").quantize("int8")
        drift = energy_report(after, against=before)
        assert list(drift.unmatched) == ["hidden/kernel"]
        assert "quantized" in drift.unmatched["hidden/kernel"]

    def test_kernels_that_cannot_be_measured_any_more_are_listed_once(self):
        before, after = dense_model("hidden", "head"), dense_model("hidden", "head")
        after.get_layer("hidden").quantize("int8")
        for against in (before, energy_report(before)):
            drift = energy_report(after, against=against)
            assert list(drift.left_out) == ["hidden/kernel"]
            assert drift.unmatched == {}

    def test_an_energy_before_is_measured_in_the_space_after(self):
        before = dense_model("body", "features")
        after = keras.models.clone_model(before)
        after.set_weights(before.get_weights())
        after.add(layers.Dense(3, name="head"))
        assert not energy_report(before).rows[1].half_space
        change = energy_report(after, against=before).changes[1]
        assert change.name == "features"
        assert change.before.half_space
        assert change.change("energy") == 0
        unmatched = energy_report(after, against=energy_report(before)).unmatched
        assert unmatched["features/kernel"] == "full space before and half space after"

    def test_where_selects_kernels_and_depthwise_filters(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 4)),
                layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise"),
                layers.Conv2D(6, 2, name="conv"),
            ]
        )
        before = changed(model, np.random.default_rng(0))
        drift = energy_report(model, where="depthwise", against=before)
        assert [each.name for each in drift.changes] == ["depthwise"]
        assert drift.unmatched == {}
        assert len(drift.changes[0].turns) == 16

    def test_layers_of_equal_names_in_a_subclassed_model_are_matched(self):
        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = [layers.Dense(4, name="same") for _ in range(3)]

            def call(self, x):
                return self.hidden[2](self.hidden[1](self.hidden[0](x)))

        before, after = Model(), Model()
        for model in (before, after):
            model(np.ones((1, 4)))
        after.set_weights(before.get_weights())
        after.hidden[1].kernel.assign(-after.hidden[1].kernel)
        found = turns_of(energy_report(after, against=before))
        assert {name: turns.max() for name, turns in found.items()} == {
            "same": 0,
            "same_1": 180,
            "same_2": 0,
        }
        only = energy_report(after, against=before, where=lambda x: x is after.hidden[1])
        assert list(turns_of(only)) == ["same_1"]

    def test_wrapped_layers_are_compared_with_bare_ones(self):
        model = dense_model("hidden", "head")
        before = changed(model, np.random.default_rng(0))
        wrapped = regularize(model, hidden=MHP(), output=None).model
        assert wrapped is not model
        drift = energy_report(wrapped, against=before)
        assert (drift.note, drift.unmatched) == ("", {})
        bare = energy_report(model, against=before)
        for one, other in zip(drift.changes, bare.changes, strict=True):
            np.testing.assert_array_equal(one.turns, other.turns)

    @pytest.mark.parametrize("merged", [False, True])
    def test_layers_with_lora_are_compared_by_their_effective_kernel(self, merged, tmp_path):
        before = dense_model("hidden", "head")
        before.save(tmp_path / "before.keras")
        after = keras.saving.load_model(tmp_path / "before.keras")
        layer = after.get_layer("hidden")
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(normals(2, 6))
        kernels = [array(before.get_layer("hidden").kernel), array(layer.kernel)]
        if merged:
            after.save(tmp_path / "after.keras")
            after = keras.saving.load_model(tmp_path / "after.keras")
        found = turns_of(energy_report(after, against=before))
        expected = [turn(*pair) for pair in zip(*(k.T for k in kernels), strict=True)]
        np.testing.assert_allclose(found["hidden"], expected, rtol=1e-5)
        assert not found["head"].any()


class TestInvalidArguments:
    @pytest.mark.parametrize(
        ("against", "error"),
        [
            (3, TypeError),
            (keras.Model, TypeError),
            ("model.h5", ValueError),
            ("/nowhere/model.keras", ValueError),
            (keras.Sequential([layers.Dense(3)]), ValueError),
        ],
    )
    def test_unusable_values_raise(self, against, error):
        with pytest.raises(error):
            energy_report(dense_model("a"), against=against)

    def test_nothing_to_compare_raises_and_names_the_reasons(self):
        message = r"can be compared \(a/kernel: only after; .*\)\. Received: against=Sequential"
        with pytest.raises(ValueError, match=message):
            energy_report(dense_model("a", "b"), against=dense_model("c"))

    @pytest.mark.parametrize("options", [{"s": 1}, {"distance": "angular"}, {"softening": 0.1}])
    def test_reports_of_other_energies_raise(self, options):
        model = dense_model("a")
        [name] = options
        with pytest.raises(ValueError, match=rf"a/kernel: {name} .* before and .* after"):
            energy_report(model, against=energy_report(model, **options))

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_files_with_code_are_refused(self, tmp_path):
        path = tmp_path / "before.keras"
        keras.Sequential([keras.Input((6,)), layers.Lambda(lambda x: x)]).save(path)
        with pytest.raises(ValueError, match="safe_mode"):
            energy_report(dense_model("a"), against=path)


def test_without_against_the_result_is_a_plain_report():
    assert type(energy_report(dense_model("a"))) is Report
