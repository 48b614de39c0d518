"""Energies of a few random groups: unbiased, and only the drawn neurons have a gradient."""

import itertools
import math

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, energy_and_gradient, normals

from keras_mhe import MHE, HalfSpaceMHE
from keras_mhe.energies import _drawn
from keras_mhe.energies._potential import PotentialSpec


def drawn_value_and_gradient(kernel, sample, sample_groups, **options):
    energy = MHE(1.0, sample=sample, sample_groups=sample_groups, bounded=False, **options)
    return value_and_gradient(energy, kernel)


class TestDrawnProgram:
    @pytest.mark.parametrize("as_rows", [False, True])
    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize(
        ("shape", "count", "sample"), [((3, 4), 1, 3), ((3, 4), 2, 2), ((2, 3, 4), 1, 2)]
    )
    def test_mean_over_all_draws_is_the_energy(
        self, shape, count, sample, half_space, as_rows, monkeypatch, float64
    ):
        kernel = normals(*shape, dtype="float64")  # three axes: two groups of four
        potential = PotentialSpec(half_space=half_space).of_neurons(kernel)
        program = _drawn.DrawnProgram(potential, count, sample, as_rows)
        values, gradients = [], []
        for numbers in itertools.product(range(shape[-1]), repeat=count * sample):
            draw = np.array(numbers, "int32").reshape(count, sample)
            monkeypatch.setattr(
                _drawn,
                "program_for",
                lambda *_, draw=draw, **__: lambda _: keras.ops.convert_to_tensor(draw),
            )
            value, gradient = value_and_gradient(program.energy, kernel)
            values.append(value)
            gradients.append(gradient)
        groups = np.concatenate(kernel, -1) if len(shape) == 3 else kernel
        value, gradient = energy_and_gradient(
            groups, half_space=half_space, groups=max(1, len(shape) * 2 - 4)
        )
        mean = np.mean(gradients, axis=0)
        mean = np.concatenate(mean, -1) if len(shape) == 3 else mean
        assert np.mean(values) == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(mean, gradient, rtol=1e-8, atol=1e-12)

    @pytest.mark.parametrize("as_rows", [False, True])
    def test_all_numbers_are_drawn_equally_often(self, as_rows):
        """With 8,000 draws of 40 numbers, a count differs from 200 by 70 once in a million."""
        rng = np.random.default_rng(0)
        counts = np.zeros(40)
        for _ in range(20):
            matrix = rng.standard_normal((40, 40)).astype("float32")
            counts += np.bincount(np.ravel(_drawn._numbers(matrix, 4, 100, as_rows)), minlength=40)
        assert np.all(np.abs(counts - 200) < 70)

    def test_the_estimate_is_near_the_energy_of_a_large_layer(self):
        kernel = normals(3000, 8)
        exact = float(MHE(1.0, neuron_axis=0)(kernel))
        estimates = [
            float(MHE(1.0, neuron_axis=0, sample=128, sample_groups=2)(kernel * np.float32(scale)))
            for scale in 1 + np.arange(20) / 2**20
        ]
        error = np.std(estimates) / np.sqrt(len(estimates))
        assert abs(np.mean(estimates) - exact) < 5 * error < 0.05 * exact


class TestSampleGroups:
    @pytest.mark.parametrize("neuron_axis", [0, -1])
    def test_only_drawn_neurons_have_a_gradient(self, neuron_axis):
        kernel = normals(200, 5) if neuron_axis == 0 else normals(5, 200)
        _, gradient = drawn_value_and_gradient(kernel, 6, 2, neuron_axis=neuron_axis)
        assert 6 <= np.sum(np.any(gradient, axis=1 if neuron_axis == 0 else 0)) <= 12

    def test_a_step_that_moves_drawn_neurons_alone_draws_others(self):
        """Plain gradient descent leaves the other rows of an embedding as they are."""
        rows, energy = normals(300, 4), MHE(neuron_axis=0, sample=16, sample_groups=2)
        draws = []
        for _ in range(5):
            _, gradient = value_and_gradient(energy, rows)
            draws.append(frozenset(np.flatnonzero(np.any(gradient, axis=1))))
            rows = rows - np.float32(1e-3) * gradient
        assert len(set(draws)) == 5

    def test_groups_of_as_many_neurons_as_the_layer_has_cover_it(self):
        kernel = normals(4, 40)
        few, all_groups = MHE(sample=12, sample_groups=4), MHE(sample=12)
        assert float(few(kernel)) == float(all_groups(kernel))

    def test_degenerate_kernels_give_finite_values_and_gradients(self):
        for kernel in (np.zeros((3, 9)), np.ones((3, 9)), 1e30 * normals(3, 9)):
            value, gradient = drawn_value_and_gradient(
                kernel.astype("float32"), 4, 2, half_space=True
            )
            assert math.isfinite(value)
            assert np.all(np.isfinite(gradient))

    def test_the_bound_is_that_of_the_drawn_neurons(self):
        """As many neurons as are drawn share the energy of a step, not as many as the layer has."""
        assert MHE(sample=16, sample_groups=2).moving(500) == 32
        assert MHE(sample=16).moving(500) == MHE(sample=16, sample_groups=40).moving(500) == 500

    def test_config_keeps_the_number_of_groups(self):
        for energy in (MHE(sample=16, sample_groups=2), HalfSpaceMHE(sample=16, sample_groups=2)):
            config = keras.regularizers.serialize(energy)
            assert keras.regularizers.deserialize(config).sample_groups == 2
        assert "sample_groups" not in MHE(sample=16).get_config()

    @pytest.mark.parametrize(
        ("sample", "sample_groups", "error"),
        [(8, 0, ValueError), (8, 1.5, TypeError), (None, 2, ValueError)],
    )
    def test_invalid_numbers_are_named_in_the_error(self, sample, sample_groups, error):
        with pytest.raises(error, match=r"`sample_groups`.*Received: sample_groups="):
            MHE(1.0, sample=sample, sample_groups=sample_groups)
