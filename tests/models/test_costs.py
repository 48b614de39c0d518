"""Estimated costs: default energies stay within a share of a training step."""

import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from small_models import row_of

from keras_mhe import regularize
from keras_mhe.kernels import find_kernels
from keras_mhe.models import _costs
from keras_mhe.models._costs import step_cost
from keras_mhe.models._many_neurons import Sampling
from keras_mhe.models._plan import Plan

COSTS = st.lists(st.floats(1.0, 1e12), min_size=1, max_size=6)


class Subclassed(keras.Model):
    """A model whose layers have no symbolic outputs."""

    def __init__(self):
        super().__init__()
        self.filters = layers.Conv2D(4, 3)
        self.head = layers.Dense(2)

    def call(self, inputs):
        return self.head(keras.ops.mean(self.filters(inputs), axis=(1, 2)))


def positions(model):
    return [_costs._positions(found) for found in find_kernels(model)]


class TestPositions:
    def test_a_kernel_meets_each_pixel_token_and_step(self):
        image = keras.Input((9, 9, 2))
        x = layers.Conv2D(3, 3)(image)
        x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
        first = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
        assert positions(first) == [49, 16, 1]
        tokens = keras.Input((6,), dtype="int32")
        x = layers.Embedding(20, 8)(tokens)
        x = layers.MultiHeadAttention(2, 3)(x, x)
        x = layers.TimeDistributed(layers.Dense(7))(x)
        x = layers.Bidirectional(layers.LSTM(4))(x)
        second = keras.Model(tokens, layers.Dense(5)(x))
        # An embedding is looked up; attention has four kernels; both directions have two.
        assert positions(second) == [0, *[6] * 4, 6, *[6] * 4, 1]

    def test_axes_of_unknown_size_count_as_32(self):
        image = keras.Input((None, None, 2))
        assert positions(keras.Model(image, layers.Conv2D(3, 1)(image))) == [32 * 32]

    @pytest.mark.skipif(
        keras.backend.backend() == "tensorflow", reason="TensorFlow has no such kernel on a CPU"
    )
    def test_channels_may_come_first(self):
        image = keras.Input((2, 9, 8))
        filters = layers.Conv2D(3, 1, data_format="channels_first")(image)
        assert positions(keras.Model(image, filters)) == [72]

    def test_a_layer_without_a_graph_counts_by_its_kind(self):
        model = Subclassed()
        model(keras.ops.zeros((1, 8, 8, 3)))
        assert positions(model) == [64, 1]


def test_the_cost_of_a_step_grows_with_products_outputs_and_weights():
    def cost(units):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(units)])
        return step_cost(model, find_kernels(model))

    # 32 examples, 10 weights and one output per unit.
    expected = 1000 * (32 * (6 * 10 + 400) + 40 * 10)
    assert cost(2000) - cost(1000) == pytest.approx(expected)


class TestCap:
    @given(COSTS, st.floats(1.0, 1e12))
    def test_capped_costs_fill_the_budget_and_do_not_exceed_it(self, costs, budget):
        cap = _costs._cap(costs, budget)
        total = sum(min(cost, cap) for cost in costs)
        assert total <= budget * (1 + 1e-9)
        if max(costs) > cap:
            assert total == pytest.approx(budget)


class TestSampling:
    @given(st.integers(1, 4), st.integers(2, 600), st.integers(40, 200_000), st.floats(1e5, 1e12))
    def test_random_groups_cost_no_more_than_the_cap(self, groups, dimension, neurons, cap):
        plan = Plan(None, "hidden", "", counts=(groups, dimension, neurons))
        sample, count = _costs._sampling(plan, cap)
        number = neurons // sample if count is None else count
        pair = groups * _costs._energy_cost(1, dimension)
        assert number * sample**2 * pair <= cap or (sample, number) == (16, 1)
        assert 16 <= sample <= 1024
        if count is not None:
            assert sample * count < neurons


class TestDefaults:
    @pytest.mark.parametrize(("words", "length"), [(20_000, 200), (200_000, 8)])
    def test_a_text_classifier_draws_one_group_of_its_embeddings(self, words, length):
        model = keras.Sequential(
            [
                keras.Input((length,), dtype="int32"),
                layers.Embedding(words, 32, name="words"),
                layers.GlobalAveragePooling1D(),
                layers.Dense(16, "relu", name="hidden"),
                layers.Dense(2, name="head"),
            ]
        )
        table = regularize(model)
        energy = row_of(table, "words").regularizer
        assert energy.sample_groups == 1
        # An eighth of the embeddings at most, and enough pairs for a small error.
        assert 128 <= energy.sample <= words // 8
        assert "at each step, because all pairs take long" in row_of(table, "words").note
        assert row_of(table, "head").regularizer.sample is None

    def test_small_energies_are_exact_whatever_their_share(self):
        model = keras.Sequential([keras.Input((784,)), layers.Dense(128), layers.Dense(10)])
        assert [row.regularizer.sample for row in regularize(model).rows] == [None, None]

    def test_a_given_regularizer_stays_as_it_is(self):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(4000), layers.Dense(2)])
        default = regularize(model).rows[0].regularizer
        assert (default.sample is None, default.half_space) == (False, True)
        given_one = type(default)(1.0)
        assert regularize(model, given_one).rows[0].regularizer.sample is None

    def test_only_selected_kernels_share_the_budget(self):
        def sample(where):
            tokens = keras.Input((4,), dtype="int32")
            x = layers.Flatten()(layers.Embedding(5000, 8, name="words")(tokens))
            model = keras.Model(tokens, layers.Dense(5000, name="head")(x))
            return row_of(regularize(model, where=where), "words").regularizer.sample

        assert sample("words") > sample(None) >= sample("words") / 2

    def test_projections_of_attention_share_the_smallest_groups(self):
        sequence = keras.Input((3, 5))
        attended = layers.MultiHeadAttention(2, 2, 2049, name="attention")(sequence, sequence)
        model = keras.Model(sequence, layers.Dense(3)(attended))
        shared = {
            Sampling(energy.sample, energy.sample_groups)
            for energy in (row.regularizer.regularizer for row in regularize(model).rows[:-1])
        }
        assert len(shared) == 1
        assert math.isfinite(float(sum(model.losses)))
