"""A report measures each kernel as its own regularizer says, and by its role without one."""

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import (
    MHC,
    MHE,
    MHP,
    MHS,
    CoMHE,
    EnergyMonitor,
    HalfSpaceMHE,
    HypersphericalRegularization,
    energy_report,
    hyperspherical_energy,
    regularize,
)

ROWS, COLUMNS = 6, 8


def model_of(hidden):
    """Two kernels of equal shape: one with a regularizer in a hidden layer, one of the output."""
    return keras.Sequential(
        [
            keras.Input((ROWS,)),
            layers.Dense(COLUMNS, kernel_regularizer=hidden, name="hidden"),
            layers.Dense(ROWS, name="between"),
            layers.Dense(COLUMNS, name="head"),
        ]
    )


def rows_of(model, **options):
    return {row.name: row for row in energy_report(model, **options).rows}


class TestOwnRegularizer:
    @pytest.mark.parametrize(
        "energy",
        [
            MHE(30.0),
            HalfSpaceMHE(2.0, s=0),
            MHE(s=1, softening=0.5),
            HalfSpaceMHE(distance="angular"),
            MHE(distance="gaussian", t=3.0),
            HalfSpaceMHE(distance="gaussian"),
            MHE(neuron_axis=0),
            MHE(groups=2),
            HalfSpaceMHE(distance="gaussian", groups=2),
        ],
        ids=range(9),
    )
    def test_energy_of_the_report_is_that_of_the_loss(self, energy):
        """The loss is the factor times the energy, so both measure the same thing."""
        model = model_of(energy + keras.regularizers.L2(0.1))
        row = rows_of(model)["hidden"]
        loss = float(energy(model.get_layer("hidden").kernel))
        assert row.energy == pytest.approx(loss / energy.factor, rel=1e-5)
        assert row.regularizer == type(energy).__name__
        assert (row.half_space, row.s, row.distance, row.t) == (
            energy.half_space, energy.s, energy.distance, energy.t,
        )  # fmt: skip
        assert row.groups == (energy.groups or 1)
        assert row.neurons * row.groups == (ROWS if energy.neuron_axis == 0 else COLUMNS)

    @pytest.mark.parametrize(
        ("energy", "half_space"),
        [(MHS(), False), (MHS(half_space=True), True), (MHC(half_space=True), True)],
        ids=["MHS", "half", "MHC"],
    )
    def test_energies_without_a_potential_decide_the_space(self, energy, half_space):
        row = rows_of(model_of(energy))["hidden"]
        assert (row.half_space, row.s, row.distance) == (half_space, 2.0, "euclidean")
        assert row.regularizer == type(energy).__name__

    def test_the_energy_with_a_potential_counts_in_a_sum(self):
        row = rows_of(model_of(MHS(half_space=True) + MHE(s=1)))["hidden"]
        assert (row.regularizer, row.half_space, row.s) == ("MHE", False, 1.0)

    def test_projected_energies_are_measured_without_the_projection(self):
        model = model_of(CoMHE(s=1))
        row, kernel = rows_of(model)["hidden"], model.get_layer("hidden").kernel
        expected = hyperspherical_energy(kernel, s=1, half_space=True)
        assert row.energy == pytest.approx(float(expected), rel=1e-5)
        assert row.regularizer == "CoMHE"

    def test_wrappers_and_whole_models_count(self):
        wrapped = HypersphericalRegularization(layers.LSTM(4), MHP(half_space=True), name="lstm")
        model = keras.Sequential([keras.Input((3, ROWS)), wrapped, layers.Dense(5, name="head")])
        regularize(model, None, HalfSpaceMHE(s=1), where="head")
        for row in energy_report(model).rows:
            output = row.role == "output"
            assert row.regularizer == ("HalfSpaceMHE" if output else "MHP")
            assert (row.half_space, row.s, row.groups) == (True, 2 - output, 1 if output else 4)
            assert row.note == ""

    def test_all_projections_of_attention_are_measured_along_their_own_axes(self):
        sequence = keras.Input((3, 8))
        attended = layers.MultiHeadAttention(2, 4, name="attention")(sequence, sequence)
        model = keras.Model(sequence, layers.Dense(5)(attended))
        expected = [(row.neurons, row.dimension) for row in energy_report(model).rows]
        regularize(model, MHE(s=1), None)
        rows = energy_report(model).rows
        assert [(row.neurons, row.dimension) for row in rows] == expected
        assert [row.regularizer for row in rows] == ["MHE"] * 4 + [None]
        assert not any(row.half_space for row in rows)

    def test_energy_of_a_kernel_with_lora_counts(self):
        model = model_of(None)
        model.get_layer("hidden").enable_lora(2)
        regularize(model, MHE(s=1), None, where="hidden")
        assert rows_of(model)["hidden"].regularizer == "MHE"

    def test_regularizer_that_names_the_axis_of_unknown_embeddings_is_enough(self):
        class Codebook(layers.Layer):
            def build(self, shape):
                self.embeddings = self.add_weight(
                    (shape[-1], 12), regularizer=MHE(neuron_axis=-1), name="embeddings"
                )

            def call(self, inputs):
                return inputs @ self.embeddings

        model = keras.Sequential([keras.Input((ROWS,)), Codebook(name="codes")])
        [row] = energy_report(model).rows
        assert (row.neurons, row.dimension, row.note) == (12, ROWS, "")

    def test_monitor_and_comparison_measure_alike(self):
        model = model_of(MHE(30.0))
        before = keras.models.clone_model(model_of(None))
        before.set_weights(model.get_weights())
        model.compile("sgd", "mse")
        monitor = EnergyMonitor()
        x, y = normals(16, ROWS), normals(16, COLUMNS)
        model.fit(x, y, verbose=0, callbacks=[monitor])
        row = rows_of(model)["hidden"]
        assert monitor.history[-1]["rows"][0] == row.to_dict()
        # The kernel had no regularizer before, and is compared with the potential that it has now.
        [change, *_] = energy_report(model, against=before).changes
        assert (change.before.half_space, change.after.half_space) == (False, False)
        assert change.before.energy == monitor.history[0]["rows"][0]["energy"]


class TestRoles:
    def test_kernels_without_an_energy_are_measured_by_their_role(self):
        rows = rows_of(model_of("l2"))
        assert {row.regularizer for row in rows.values()} == {None}
        assert [row.half_space for row in rows.values()] == [True, True, False]

    def test_embeddings_are_in_full_space_in_reports_and_by_default_in_regularize(self):
        model = keras.Sequential(
            [
                keras.Input((3,)),
                layers.Embedding(20, 4, name="words"),
                layers.Flatten(),
                layers.Dense(6, name="hidden"),
                layers.Dense(5, name="head"),
            ]
        )
        before = energy_report(model)
        table = regularize(model)
        assert [row.half_space for row in before.rows] == [False, True, False]
        assert [row.regularizer.half_space for row in table.rows] == [False, True, False]
        assert [row.regularizer.factor for row in table.rows] == [1, 1, 10]
        after = energy_report(model)
        assert [row.energy for row in after.rows] == [row.energy for row in before.rows]


class TestArguments:
    def test_arguments_replace_what_the_regularizer_says(self):
        model = model_of(HalfSpaceMHE(s=1, softening=0.1))
        row = rows_of(model, half_space=False, s=0)["hidden"]
        assert (row.half_space, row.s, row.softening) == (False, 0, 0.1)
        note = energy_report(model, half_space=False, s=0).note
        assert note == "Arguments replace what regularizers say: s, half_space."
        assert energy_report(model_of(None), s=0).note == ""

    @pytest.mark.parametrize(
        ("energy", "options", "expected"),
        [
            (MHE(distance="gaussian", t=3), {"s": 1}, (1, "euclidean", None, "auto")),
            (MHE(distance="gaussian", t=3), {"distance": "angular"}, (2, "angular", None, "auto")),
            (
                MHE(distance="gaussian", t=3),
                {"distance": "gaussian"},
                (None, "gaussian", 3, "auto"),
            ),
            (MHE(s=1, softening=0.1), {"distance": "angular"}, (1, "angular", None, 0.1)),
            (
                MHE(s=1, softening=0.1),
                {"distance": "gaussian", "t": 5},
                (None, "gaussian", 5, "auto"),
            ),
        ],
        ids=range(5),
    )
    def test_arguments_that_one_distance_lacks_get_their_default(self, energy, options, expected):
        row = rows_of(model_of(energy), **options)["hidden"]
        assert (row.s, row.distance, row.t, row.softening) == expected

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"s": -1}, ValueError),
            ({"s": "2"}, TypeError),
            ({"distance": "cosine"}, ValueError),
            ({"half_space": 1}, TypeError),
            ({"softening": -1.0}, ValueError),
            ({"t": 2.0}, ValueError),
            ({"s": 2, "distance": "gaussian"}, ValueError),
        ],
        ids=range(7),
    )
    def test_unusable_arguments_raise(self, options, error):
        with pytest.raises(error, match="Received: "):
            energy_report(model_of(None), **options)


class TestMismatch:
    @pytest.mark.parametrize(
        ("shape", "layer", "advice"),
        [
            ((3,), layers.Embedding(20, 4, embeddings_regularizer=MHE()), "`neuron_axis=0`"),
            (
                (4, 4, 3),
                layers.Conv2DTranspose(5, 2, kernel_regularizer=MHE()),
                "`neuron_axis=-2`",
            ),
            (
                (4, 4, 4),
                layers.Conv2D(6, 2, groups=2, kernel_regularizer=MHE()),
                "`neuron_axis=-1`, `groups=2`",
            ),
            ((3, 5), layers.GRU(4, kernel_regularizer=MHE()), "`neuron_axis=-1`, `groups=3`"),
        ],
        ids=["embedding", "transposed", "groups", "gates"],
    )
    def test_bare_energy_of_other_neurons_than_those_of_the_layer_is_named(
        self, shape, layer, advice
    ):
        model = keras.Sequential([keras.Input(shape), layer])
        report = energy_report(model)
        row = report.rows[0]
        assert row.note.endswith(f"set {advice} in it")
        assert f"! {row.name}: MHE acts on the last axis" in " ".join(repr(report).split())
        # It measures what the loss measures.
        kernel = getattr(layer, row.kernel.rpartition("/")[2], None)
        kernel = layer.cell.kernel if kernel is None else kernel
        assert row.energy == pytest.approx(float(hyperspherical_energy(kernel)), rel=1e-5)
        assert row.neurons == kernel.shape[-1]

    def test_no_note_if_the_regularizer_names_its_neurons(self):
        words = layers.Embedding(20, 4, embeddings_regularizer=MHE(neuron_axis=-1))
        model = keras.Sequential([keras.Input((3,)), words])
        [row] = energy_report(model).rows
        assert (row.note, row.neurons) == ("", 4)


def test_a_regularizer_that_is_not_in_the_loss_is_named_and_not_used():
    """Keras reads the attribute of a layer only when it builds the layer."""
    model = model_of(None)
    model.get_layer("hidden").kernel_regularizer = MHE(s=1)
    assert model.losses == []
    row = rows_of(model)["hidden"]
    assert (row.regularizer, row.half_space, row.s) == (None, True, 2.0)
    assert row.note.startswith("its regularizer was assigned after the layer was built")
    regularize(model, MHE(s=1), None)
    row = rows_of(model)["hidden"]
    assert (row.regularizer, row.s, row.note) == ("MHE", 1.0, "")


def test_different_potentials_are_named_below_the_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = repr(energy_report(model_of(MHE(s=1, distance="angular"))))
    assert "Energies with s = 1, angular: hidden." in text
    assert "Energies with s = 2: between, head." in text
    assert " kernel   space  " in text


def test_a_gaussian_energy_has_a_position():
    """0 for the simplex, which is the best arrangement, and about 1 for random neurons."""
    simplex = np.eye(6) - 1 / 6
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="head")])
    model.get_layer("head").kernel.assign(simplex)
    [row] = energy_report(model, distance="gaussian", t=2).rows
    assert row.position == pytest.approx(0, abs=1e-5)
    assert row.energy == pytest.approx(-2 * 2 * (1 + 1 / 5), rel=1e-5)
    wide = keras.Sequential([keras.Input((6,)), layers.Dense(2000, name="head")])
    wide.get_layer("head").kernel.assign(normals(6, 2000))
    [row] = energy_report(wide, distance="gaussian", t=2).rows
    assert row.position == pytest.approx(1, abs=0.02)
