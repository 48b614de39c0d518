"""One regularizer serves all projections of an attention layer; kernel shapes tell them apart."""

import keras
import pytest
from helpers import energy_value, normals
from keras import layers

from keras_mhe import CoMHE, HalfSpaceMHE
from keras_mhe.regularizers._attention import AttentionEnergy, head_sizes
from keras_mhe.regularizers._projections import GroupProjection

LAYERS = [
    (layers.MultiHeadAttention(2, 3), [(2, 3)]),
    (layers.MultiHeadAttention(2, 3, value_dim=4), [(2, 3), (2, 4)]),
    (layers.GroupQueryAttention(3, 4, 2), [(4, 3), (2, 3)]),
]


@pytest.mark.parametrize(("layer", "sizes"), LAYERS)
def test_head_sizes_match_the_kernels(layer, sizes):
    assert set(head_sizes(layer)) == set(sizes)
    layer.build((None, 5, 7), (None, 5, 7))
    energy = AttentionEnergy(HalfSpaceMHE(), sizes)
    for projection in vars(layer).values():
        if isinstance(projection, layers.EinsumDense):
            is_input = 7 in projection.kernel.shape[:1]
            assert energy.neuron_axis(projection.kernel.shape) == ((-2, -1) if is_input else (2,))


def test_loss_is_the_energy_of_input_and_output_projections():
    energy = AttentionEnergy(HalfSpaceMHE(0.5), [(2, 3)])
    input_kernel, output_kernel = normals(7, 2, 3), normals(2, 3, 4, 5)
    expected = 0.5 * energy_value(input_kernel, neuron_axis=(1, 2), half_space=True)
    assert float(energy(input_kernel)) == pytest.approx(expected, rel=1e-6)
    expected = 0.5 * energy_value(output_kernel, neuron_axis=(2, 3), half_space=True)
    assert float(energy(output_kernel)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (4, 5, 6), (2, 3)])
def test_ambiguous_or_unknown_shapes_raise_an_error(shape):
    energy = AttentionEnergy(HalfSpaceMHE(), [(2, 3)])
    with pytest.raises(ValueError, match=r"must be either.*heads=\[\[2, 3\]\]"):
        energy(normals(*shape))


def test_config_round_trip():
    energy = AttentionEnergy(CoMHE(projection=GroupProjection(2)), [(2, 3), (2, 4)])
    restored = keras.regularizers.deserialize(keras.regularizers.serialize(energy))
    assert repr(restored) == repr(energy)
    assert float(restored(normals(7, 2, 3))) == pytest.approx(float(energy(normals(7, 2, 3))))


@pytest.mark.parametrize(
    ("regularizer", "heads", "error"),
    [
        (keras.regularizers.L2(), [(2, 3)], "Expected a regularizer of keras_mhe"),
        (HalfSpaceMHE(), [(2, "3")], "pairs of positive integers"),
    ],
)
def test_invalid_arguments_raise_an_error(regularizer, heads, error):
    with pytest.raises(TypeError, match=error):
        AttentionEnergy(regularizer, heads)
