"""All pairs: what XLA is given, and panels that add up to the one matrix."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import SPACES, normals, number, on_some_potentials, second_slopes, slopes

from keras_mhe import energy, pairs, potentials
from keras_mhe._backend import compiled


def program_text(n, half_space=True):
    """What XLA is given for n neurons of 32 coordinates."""
    potential = potentials.Potential(2.0, False, half_space, 0.1)
    kernel = keras.ops.convert_to_tensor(normals(32, n))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def program(kernel):
            return pairs.value_and_gradient(kernel, potential)

        return program.experimental_get_compiler_ir(kernel)(stage="hlo")
    if keras.backend.backend() == "jax":
        program = energy._compiled_energy(tuple(kernel.shape), "float32", potential)
        return program.lower(kernel).as_text()
    pytest.skip("only TensorFlow and JAX compile by XLA")


class TestProgram:
    """What XLA is given: two products, whatever the space, and full precision."""

    @pytest.mark.parametrize("half_space", SPACES)
    def test_value_and_gradient_take_two_products(self, half_space):
        text = program_text(16, half_space)
        assert text.count(" dot(") + text.count("stablehlo.dot_general") == 2

    @pytest.mark.parametrize("half_space", SPACES)
    def test_mirror_images_are_never_built(self, half_space):
        text = program_text(16, half_space)
        assert "16,16" in text or "16x16" in text
        assert "32,32" not in text
        assert "32x32" not in text

    def test_products_ask_for_full_precision(self):
        if keras.backend.backend() != "jax":
            pytest.skip("only JAX sets the precision of a single product")
        assert program_text(16).count("precision = [HIGHEST, HIGHEST]") == 2


def both_ways(unit, potential, width):
    """Sum and pull by one matrix and by panels, as float64 arrays."""

    def ways(unit):
        return pairs._by_matrix(unit, potential), pairs._by_panels(unit, potential, width)

    program = compiled(ways, (unit.shape, str(unit.dtype)))
    results = program(keras.ops.convert_to_tensor(unit))
    return [[keras.ops.convert_to_numpy(x) for x in way] for way in results]


class TestPanels:
    """Panels add up to the matrix that they never build."""

    @settings(max_examples=6)
    @given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
    def test_any_number_of_neurons_in_panels_of_any_width(self, n, width, seed):
        unit = normals(3, n, seed=seed)
        unit /= np.linalg.norm(unit, axis=0)
        potential = potentials.Potential(2.0, False, False, 0.1)
        (sums, pull), (panel_sums, panel_pull) = both_ways(unit, potential, width)
        assert np.sum(panel_sums) == pytest.approx(np.sum(sums), rel=1e-5)
        np.testing.assert_allclose(panel_pull, pull, atol=1e-5 * (1 + np.abs(pull).max()))

    @on_some_potentials
    def test_every_kind_of_potential(self, s, distance, half_space, float64):
        unit = normals(2, 4, 45, dtype="float64")  # two groups
        unit /= np.linalg.norm(unit, axis=-2, keepdims=True)
        unit[0, :, 7] = 0
        potential = potentials.Potential(float(s), distance == "angular", half_space, 0.1)
        (sums, pull), (panel_sums, panel_pull) = both_ways(unit, potential, 16)
        assert np.sum(panel_sums) == pytest.approx(np.sum(sums), rel=1e-12)
        np.testing.assert_allclose(panel_pull, pull, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(("distance", "half_space"), [("euclidean", False), ("angular", True)])
    def test_a_large_kernel_has_the_energy_of_its_definition(self, distance, half_space):
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
        got = number(kernel, distance=distance, half_space=half_space, softening=0)
        assert got == pytest.approx(expected, rel=2e-6)

    def test_a_large_kernel_has_the_gradient_of_its_definition(self):
        kernel = normals(16, 1500)
        norms = np.linalg.norm(kernel.astype("float64"), axis=0)
        unit = kernel / norms
        square = 2 - 2 * unit.T @ unit
        np.fill_diagonal(square, np.inf)
        pull = 4 * unit @ square**-2.0 / (1500 * 1499)
        expected = (pull - unit * np.sum(unit * pull, axis=0)) / norms
        _, got = slopes(kernel, softening=0)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize("n", [7, 23])
    def test_sets_of_neurons_take_turns_where_together_they_are_many(self, n, monkeypatch, float64):
        unit = normals(2, 6, 3, n, dtype="float64")
        unit /= np.linalg.norm(unit, axis=-2, keepdims=True)
        potential = potentials.Potential(2.0, False, True, 0.1)
        expected = [np.asarray(x) for x in pairs._by_matrix(unit, potential)]
        # One set of 23 neurons at a time and that by panels, two sets of 7.
        monkeypatch.setattr(pairs, "_CPU_MATRIX", 10)
        monkeypatch.setattr(pairs, "_CPU_PANEL", 16)
        sums, pull = (np.asarray(x) for x in pairs.pair_sums(unit, potential))
        assert np.sum(sums) == pytest.approx(np.sum(expected[0]), rel=1e-12)
        np.testing.assert_allclose(pull, expected[1], rtol=1e-9, atol=1e-9)

    def test_no_matrix_of_all_pairs_is_built(self):
        text = program_text(1600)
        assert "1600,1600" not in text
        assert "1600x1600" not in text

    def test_programs_do_not_grow_with_the_number_of_neurons(self):
        small, large = (program_text(n).count("\n") for n in (1600, 16000))
        assert large == small

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_kernel_that_is_not_finite_shows(self, bad):
        kernel = normals(4, 1500)
        kernel[0, -1] = bad
        assert np.isnan(number(kernel))

    def test_second_derivatives_are_refused_in_words(self):
        with pytest.raises(NotImplementedError, match=r"Received: 1500 neurons"):
            second_slopes(normals(4, 1500))
