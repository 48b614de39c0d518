"""All pairs: the programs that XLA compiles, and panels that replace the matrix of all pairs."""

import keras
import numpy as np
import pytest
from helpers import (
    SPACES,
    energy_and_gradient,
    energy_value,
    normals,
    on_some_potentials,
    second_order_gradient,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mhe._backend import compiled
from keras_mhe.energies import _pair_sums as pair_sums
from keras_mhe.energies import _pairs as pairs
from keras_mhe.energies._riesz import RieszPotential


def smallest_with_panels():
    """Returns a number of neurons for which panels are used on this device."""
    return pair_sums._matrix_and_panel_size()[0] + 31


def program_text(n, half_space=True):
    """Returns the program that XLA compiles for n neurons of 32 coordinates."""
    potential = RieszPotential(2.0, False, half_space, 0.1)
    kernel = keras.ops.convert_to_tensor(normals(32, n))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def program(kernel):
            return pairs.value_and_gradient(kernel, potential)

        return program.experimental_get_compiler_ir(kernel)(stage="hlo")
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(lambda k: pairs.value_and_gradient(k, potential)).lower(kernel).as_text()
    pytest.skip("only TensorFlow and JAX compile with XLA")


class TestProgram:
    """In both spaces, a program has two matrix products."""

    @pytest.mark.parametrize("half_space", SPACES)
    def test_value_and_gradient_take_two_matrix_products(self, half_space):
        text = program_text(16, half_space)
        assert text.count(" dot(") + text.count("stablehlo.dot_general") == 2

    @pytest.mark.parametrize("half_space", SPACES)
    def test_mirror_images_are_never_built(self, half_space):
        text = program_text(16, half_space)
        assert "16,16" in text or "16x16" in text
        assert "32,32" not in text
        assert "32x32" not in text


def by_matrix_and_by_panels(unit, potential, width):
    """Returns sums and direction gradients, by one matrix and by panels, as NumPy arrays."""

    def both(unit):
        return pair_sums._sums_by_matrix(unit, potential), pair_sums._sums_by_panels(
            unit, potential, width
        )

    program = compiled(both, (unit.shape, str(unit.dtype)))
    results = program(keras.ops.convert_to_tensor(unit))
    return [[keras.ops.convert_to_numpy(x) for x in result] for result in results]


class TestSums:
    """Sums from one half of the matrix are those of the whole matrix."""

    @pytest.mark.parametrize("columns", [4, 7])
    def test_both_halves_have_the_same_sum(self, columns):
        unit = normals(2, 3, columns, dtype="float64")
        cosine = keras.ops.convert_to_tensor(np.swapaxes(unit, -1, -2) @ unit / 9)
        potential = RieszPotential(2.0, False, True, 0.1)
        for n in (None, *range(columns + 1)):
            sums = keras.ops.convert_to_numpy(pair_sums._folded_sums(cosine, potential, n))
            value = keras.ops.convert_to_numpy(potential(cosine)[0])
            index = np.arange(columns)
            number = columns if n is None else n
            pairs = (index[:, None] != index) & (np.maximum(index[:, None], index) < number)
            expected = np.sum(np.where(pairs, value, 0.0), axis=(-2, -1))
            assert sums.shape == (2, columns - columns // 2)
            np.testing.assert_allclose(np.sum(sums, axis=-1), expected, rtol=1e-5)

    @pytest.mark.parametrize("n", [520, 521, 720])
    def test_energies_of_hundreds_of_neurons_match_the_definition(self, n, float64):
        """Above 512 neurons, sums are folded; above 704, the radial part is a pass of its own."""
        kernel = normals(5, n, dtype="float64")
        value, gradient = energy_and_gradient(kernel, half_space=True, softening=0)
        unit = kernel / np.linalg.norm(kernel, axis=0)
        cosines = unit.T @ unit
        np.fill_diagonal(cosines, 0)
        off = 1 - np.eye(n)
        pairs = n * (2 * n - 1)
        near, far = 0.5 / (1 - cosines), 0.5 / (1 + cosines)
        assert value == pytest.approx((np.sum(off * (near + far)) + n / 4) / pairs, rel=1e-10)
        slopes = off * (2 * near**2 - 2 * far**2) * 2 / pairs
        expected = unit @ slopes
        expected -= unit * np.sum(unit * expected, axis=0)
        expected /= np.linalg.norm(kernel, axis=0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-14)


class TestPanels:
    """Panels give the sums of the matrix of all pairs without building it."""

    @settings(max_examples=6)
    @given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
    def test_panels_of_any_width_agree_with_the_matrix(self, n, width, seed):
        unit = normals(3, n, seed=seed)
        unit /= np.linalg.norm(unit, axis=0)
        potential = RieszPotential(2.0, False, False, 0.1)
        (sums, gradient), (panel_sums, panel_gradient) = by_matrix_and_by_panels(
            unit, potential, width
        )
        assert np.sum(panel_sums) == pytest.approx(np.sum(sums), rel=1e-5)
        np.testing.assert_allclose(
            panel_gradient, gradient, atol=1e-5 * (1 + np.abs(gradient).max())
        )

    @on_some_potentials
    def test_panels_agree_with_the_matrix_for_every_kind_of_potential(
        self, s, distance, half_space, float64
    ):
        unit = normals(2, 4, 45, dtype="float64")  # two groups
        unit /= np.linalg.norm(unit, axis=-2, keepdims=True)
        unit[0, :, 7] = 0
        potential = RieszPotential(float(s), distance == "angular", half_space, 0.1)
        (sums, gradient), (panel_sums, panel_gradient) = by_matrix_and_by_panels(
            unit, potential, 16
        )
        assert np.sum(panel_sums) == pytest.approx(np.sum(sums), rel=1e-12)
        np.testing.assert_allclose(panel_gradient, gradient, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(("distance", "half_space"), [("euclidean", False), ("angular", True)])
    def test_energy_of_a_large_kernel_matches_the_definition(self, distance, half_space):
        kernel = normals(16, 1500)
        unit = kernel / np.linalg.norm(kernel.astype("float64"), axis=0)
        cosines = unit.T @ unit
        np.fill_diagonal(cosines, 0)
        length = np.sqrt(2 - 2 * cosines) if distance == "euclidean" else np.arccos(cosines)
        mirrored = np.sqrt(2 + 2 * cosines) if distance == "euclidean" else np.pi - length
        n, f = len(cosines), lambda x: np.sum(np.triu(x**-2.0, k=1)) * 2
        if half_space:
            farthest = 2 if distance == "euclidean" else np.pi
            constant = farthest**-2 / (2 * n - 1)
            expected = (f(length) + f(mirrored)) / (n * (2 * n - 1)) + constant
        else:
            expected = f(length) / (n * (n - 1))
        got = energy_value(kernel, distance=distance, half_space=half_space, softening=0)
        assert got == pytest.approx(expected, rel=2e-6)

    def test_gradient_of_a_large_kernel_matches_the_definition(self):
        kernel = normals(16, 1500)
        norms = np.linalg.norm(kernel.astype("float64"), axis=0)
        unit = kernel / norms
        square = 2 - 2 * unit.T @ unit
        np.fill_diagonal(square, np.inf)
        direction_gradient = 4 * unit @ square**-2.0 / (1500 * 1499)
        expected = (direction_gradient - unit * np.sum(unit * direction_gradient, axis=0)) / norms
        _, got = energy_and_gradient(kernel, softening=0)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize("n", [7, 23])
    def test_many_sets_of_neurons_are_computed_in_turn(self, n, monkeypatch, float64):
        unit = normals(2, 6, 3, n, dtype="float64")
        unit /= np.linalg.norm(unit, axis=-2, keepdims=True)
        potential = RieszPotential(2.0, False, True, 0.1)
        unit = keras.ops.convert_to_tensor(unit)
        to_numpy = keras.ops.convert_to_numpy
        expected = [to_numpy(x) for x in pair_sums._sums_by_matrix(unit, potential)]
        # Sets of 23 neurons are computed one at a time, by panels; sets of 7 two at a time.
        monkeypatch.setattr(pair_sums, "_matrix_and_panel_size", lambda: (10, 16))
        sums, gradient = (to_numpy(x) for x in pairs.pair_sums(unit, potential))
        assert np.sum(sums) == pytest.approx(np.sum(expected[0]), rel=1e-12)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-9)

    def test_no_matrix_of_all_pairs_is_built(self):
        n = smallest_with_panels()
        text = program_text(n)
        assert f"{n},{n}" not in text
        assert f"{n}x{n}" not in text

    def test_size_of_a_program_does_not_depend_on_the_number_of_neurons(self):
        n = smallest_with_panels()
        small, large = (program_text(n).count("\n") for n in (n, 10 * n))
        assert large == small

    @pytest.mark.parametrize("entry", [np.nan, np.inf])
    def test_nan_or_infinity_in_a_kernel_gives_nan(self, entry):
        kernel = normals(4, 1500)
        kernel[0, -1] = entry
        assert np.isnan(energy_value(kernel))

    def test_second_derivatives_raise_a_clear_error(self):
        n = smallest_with_panels()
        with pytest.raises(NotImplementedError, match=f"Received: {n} neurons"):
            second_order_gradient(normals(4, n))
