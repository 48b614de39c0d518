"""One regularizer serves all projections of attention, by the shapes of their kernels."""

import keras
import pytest
from keras import layers
from probes import normals, number

from keras_mhe import CoMHE, HalfSpaceMHE
from keras_mhe.attention import AttentionEnergy, head_sizes
from keras_mhe.projections import GroupProjection

LAYERS = [
    (layers.MultiHeadAttention(2, 3), [(2, 3)]),
    (layers.MultiHeadAttention(2, 3, value_dim=4), [(2, 3), (2, 4)]),
    (layers.GroupQueryAttention(3, 4, 2), [(4, 3), (2, 3)]),
]


@pytest.mark.parametrize(("layer", "sizes"), LAYERS)
def test_head_sizes_are_those_of_the_kernels(layer, sizes):
    assert set(head_sizes(layer)) == set(sizes)
    layer.build((None, 5, 7), (None, 5, 7))
    energy = AttentionEnergy(HalfSpaceMHE(), sizes)
    for part in vars(layer).values():
        if isinstance(part, layers.EinsumDense):
            inputs = 7 in part.kernel.shape[:1]
            assert energy.neuron_axis(part.kernel.shape) == ((-2, -1) if inputs else (2,))


def test_the_loss_is_the_energy_of_those_neurons():
    energy = AttentionEnergy(HalfSpaceMHE(0.5), [(2, 3)])
    into, out = normals(7, 2, 3), normals(2, 3, 4, 5)
    expected = 0.5 * number(into, neuron_axis=(1, 2), half_space=True)
    assert float(energy(into)) == pytest.approx(expected, rel=1e-6)
    expected = 0.5 * number(out, neuron_axis=(2, 3), half_space=True)
    assert float(energy(out)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (4, 5, 6), (2, 3)])
def test_a_shape_that_does_not_tell_is_an_error(shape):
    energy = AttentionEnergy(HalfSpaceMHE(), [(2, 3)])
    with pytest.raises(ValueError, match=r"must tell inputs from heads.*heads=\[\[2, 3\]\]"):
        energy(normals(*shape))


def test_its_config_brings_it_back():
    energy = AttentionEnergy(CoMHE(projection=GroupProjection(2)), [(2, 3), (2, 4)])
    again = keras.regularizers.deserialize(keras.regularizers.serialize(energy))
    assert repr(again) == repr(energy)
    assert float(again(normals(7, 2, 3))) == pytest.approx(float(energy(normals(7, 2, 3))))


@pytest.mark.parametrize(
    ("regularizer", "heads", "error"),
    [
        (keras.regularizers.L2(), [(2, 3)], "Expected a regularizer of keras_mhe"),
        (HalfSpaceMHE(), [(2, "3")], "pairs of positive integers"),
    ],
)
def test_bad_arguments_are_named(regularizer, heads, error):
    with pytest.raises(TypeError, match=error):
        AttentionEnergy(regularizer, heads)
