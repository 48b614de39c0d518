"""Kernels with many neurons: the defaults use random groups, and other energies give a warning."""

import copy

import keras
import pytest
from keras import layers
from small_models import row_of, sum_of_losses

from keras_mhe import (
    MGD,
    MHE,
    MHP,
    MHS,
    CoMHE,
    HalfSpaceMHE,
    energy_report,
    regularize,
    unregularize,
)
from keras_mhe.kernels import find_kernels
from keras_mhe.kernels._named_axes import with_named_axes
from keras_mhe.models._many_neurons import has_many_neurons
from keras_mhe.regularizers import AttentionEnergy


def text_model(words=5000):
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(words, 4, name="words"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )


def test_default_energies_of_many_neurons_use_random_groups_after_saving_too(tmp_path):
    model = text_model()
    table = regularize(model)
    row = row_of(table, "words")
    sample = row.regularizer.sample
    expected = f"one random group of {sample} neurons at each step, because all pairs take long"
    assert row.note == expected
    assert (row.regularizer.sample_groups, row.saved) == (1, True)
    assert 64 <= sample <= 1024
    assert not row.regularizer.half_space
    assert row_of(table, "head").regularizer.sample is None
    # A second call changes nothing, and its note does not say that it replaces something.
    assert row_of(regularize(model), "words").note == row.note
    # The default itself has not changed.
    assert row_of(regularize(text_model(300)), "words").regularizer.sample is None
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("words").embeddings_regularizer.sample == sample
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)
    assert len(unregularize(model).rows) == 2
    assert model.losses == []


def test_default_energies_of_an_output_layer_and_of_a_model_that_is_not_built():
    head = keras.Sequential([layers.Dense(4097, name="head")])
    later = row_of(regularize(head), "head")
    assert (later.role, later.regularizer.sample, later.regularizer.factor) == ("output", 256, 10)
    head.build((None, 2))
    assert 64 <= row_of(regularize(head), "head").regularizer.sample <= 1024
    tokens = keras.Sequential([layers.Embedding(4097, 2, name="words"), layers.Flatten()])
    assert row_of(regularize(tokens), "words").regularizer.sample == 256


def test_all_projections_of_attention_share_the_sampled_energy():
    sequence = keras.Input((3, 5))
    attended = layers.MultiHeadAttention(2, 2, 2049, name="attention")(sequence, sequence)
    model = keras.Model(sequence, layers.Dense(3)(attended))
    rows = [row for row in regularize(model).rows if row.layer == "attention"]
    assert {row.action for row in rows} == {"regularized"}
    assert {isinstance(row.regularizer, AttentionEnergy) for row in rows} == {True}
    energies = [row.regularizer.regularizer for row in rows]
    assert len({energy.sample for energy in energies}) == 1
    assert {energy.sample_groups for energy in energies} == {1}
    assert all(row.saved for row in rows)


@pytest.mark.once
@pytest.mark.parametrize("energy", [HalfSpaceMHE(1.0), CoMHE(), MHS(), MGD(), MHE() + MHE(s=0)])
def test_other_energies_of_all_pairs_stay_and_give_a_warning(energy):
    before = copy.deepcopy(energy.get_config())
    with pytest.warns(UserWarning, match=r"More than 4096 neurons.*step of words"):
        table = regularize(text_model(), energy)
    row = row_of(table, "words")
    assert "all pairs take long" in row.note
    assert "More than 4096 neurons: all pairs take long" in table.title
    assert energy.get_config() == before
    assert getattr(row.regularizer, "sample", None) is None


@pytest.mark.once
@pytest.mark.parametrize("energy", [HalfSpaceMHE(sample=64), MHP(), None])
def test_energies_that_do_not_take_all_pairs_give_no_warning(energy):
    table = regularize(text_model(), energy)
    assert "all pairs" not in row_of(table, "words").note + table.title


@pytest.mark.once
def test_report_of_many_neurons_is_exact():
    model = text_model(1100)
    embeddings = model.get_layer("words").embeddings
    [row] = energy_report(model, where="words").rows
    expected = MHE(neuron_axis=0)(embeddings)
    assert row.energy == pytest.approx(float(expected), rel=1e-5)


def test_named_axes_decide_which_size_of_an_embedding_counts():
    model = keras.Sequential([layers.Embedding(5000, 5, name="words"), layers.Flatten()])
    [found] = find_kernels(model)
    assert has_many_neurons(found)
    for axis, many in ((0, True), (-2, True), (-1, False), (1, False), (2, False), ([0, 1], False)):
        [named] = with_named_axes([found], {"words": axis})
        assert has_many_neurons(named) == many
    model.build((None, 3))
    [found] = find_kernels(model)
    for axis, many in ((0, True), (-1, False), (2, False), ([0, 1], False)):
        [named] = with_named_axes([found], {"words": axis})
        assert has_many_neurons(named) == many
