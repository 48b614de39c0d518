"""Reasons to skip a kernel are sentences about the layer, and name no argument."""

import keras
import pytest
from keras import layers

from keras_mhe import HalfSpaceMHE, energy_report, regularize
from keras_mhe.energies._neurons import matrix_sizes
from keras_mhe.kernels._skip_reasons import misfit, neuron_counts

pytestmark = pytest.mark.once


class _Own(layers.Layer):
    def __init__(self, shape, weight="kernel"):
        super().__init__()
        self.shape, self.weight = shape, weight

    def build(self, shape):
        setattr(self, self.weight, self.add_weight(shape=self.shape))

    def call(self, x):
        return x


class _OwnEmbedding(layers.Embedding):
    embeddings = None  # a property of the base class

    def __init__(self, shape):
        super().__init__(4, 5)
        self.shape = shape

    def build(self, shape):
        self.embeddings = self.add_weight(shape=self.shape)

    def call(self, x):
        return x


def model_of(layer):
    flat = [layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input((4, 5)), layers.Dense(5), layer, *flat])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.EinsumDense("abc,bc->abc", (4, 5)), "no axis of its kernel is left for the coor"),
        (layers.EinsumDense("abc,dc->abdc", (4, 2, 5)), "no axis of its kernel is left for"),
        (layers.EinsumDense("abc,cc->ab", (4,)), "no axis of its kernel indexes neurons"),
        (_Own((4, 0)), "its kernel of shape (4, 0) has no entries"),
        (_OwnEmbedding((0, 4)), "its kernel of shape (0, 4) has no entries"),
        (_Own((4, 1)), "one neuron, without a pair"),
        (_OwnEmbedding((4, 1)), "neurons of one coordinate have no directions"),
        (_Own((4, 5), "embeddings"), "the axis of its neurons is unknown; name it: `axes={"),
        (layers.GRU(1, return_sequences=True), "one neuron, without a pair in its group"),
    ],
)
def test_a_kernel_without_pairs_of_neurons_is_skipped_with_a_sentence(layer, reason):
    model = model_of(layer)
    rows = [row for row in regularize(model).rows if row.layer == layer.name]
    notes = [row.note for row in rows] + [
        note for name, note in energy_report(model).left_out.items() if layer.name in name
    ]
    assert len(notes) >= 2
    for note in notes:
        assert note.startswith(reason)
        assert "rgument" not in note


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"groups": 2}, "its number of neurons, 5, does not divide into 2"),
        ({"neuron_axis": 2}, "its kernel of shape (5, 5) has no axis 2"),
        ({"neuron_axis": (-1, 1)}, "two of the axes (-1, 1) are the same axis"),
        ({"neuron_axis": (0, 1)}, "no axis of its kernel is left for"),
    ],
)
def test_arguments_that_do_not_fit_a_kernel_give_a_sentence(options, reason):
    model = model_of(layers.Activation("relu"))
    note = regularize(model, HalfSpaceMHE(**options)).rows[0].note
    assert note.startswith(reason)


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 4), (0, 4), (5, 1), (1, 5)])
@pytest.mark.parametrize("axes", [None, 0, -1, 2, (), (0, 1), (-1, 1), [0]])
@pytest.mark.parametrize("groups", [None, 1, 2, 5])
def test_every_error_of_the_sizes_has_a_reason(shape, axes, groups):
    try:
        sizes = matrix_sizes(shape, axes, groups)
    except ValueError:
        assert misfit(shape, axes, groups) is not None
        with pytest.raises(ValueError, match=r"^(its|no axis|two of) "):
            neuron_counts(shape, axes, groups)
    else:
        assert misfit(shape, axes, groups) is None
        if min(sizes[1:]) > 1:
            assert neuron_counts(shape, axes, groups) == sizes
