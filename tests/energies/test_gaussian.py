"""The Gaussian energy: its definition on every path, and its range in float32."""

import itertools
import math

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import SPACES, energy_and_gradient, energy_value, normals, second_order_gradient

from keras_mhe import class_energy, hyperspherical_energy
from keras_mhe._backend import compiled
from keras_mhe.energies import _minibatch, _pair_sums
from keras_mhe.energies._gaussian import GaussianPotential
from keras_mhe.energies._programs import fresh_programs

# The mean of the second could underflow in float32, so its values are relative to the closest pair.
RATES = [2.0, 40.0]


def on_every_gaussian(test):
    test = pytest.mark.parametrize("t", RATES)(test)
    return pytest.mark.parametrize("half_space", SPACES)(test)


def gaussian(t, half_space=False):
    return {"distance": "gaussian", "t": t, "half_space": half_space}


def expected_value_and_gradient(kernel, t, half_space, groups=1, step=1e-5):
    kernel = np.asarray(kernel, "float64")

    def energy(kernel):
        return oracle.gaussian_energy(kernel, t, half_space, groups)

    return energy(kernel), oracle.central_differences(energy, kernel, step)


def class_definition(kernel, labels, t, half_space):
    unit = kernel / np.linalg.norm(kernel, axis=0)
    points = np.concatenate([unit, -unit], axis=1) if half_space else unit
    square = np.sum((unit[:, labels][:, :, None] - points[:, None, :]) ** 2, axis=0)
    others = np.arange(points.shape[1]) != np.array(labels)[:, None]
    return oracle.log_mean_exp(-t * square[others])


class TestDefinition:
    """Value and gradient match `log mean exp(-t |u - v|^2)` and its central differences."""

    @on_every_gaussian
    @pytest.mark.parametrize("groups", [1, 2])
    def test_one_matrix(self, t, half_space, groups, float64):
        kernel = normals(3, 6, dtype="float64")
        value, gradient = energy_and_gradient(kernel, groups=groups, **gaussian(t, half_space))
        expected_value, expected = expected_value_and_gradient(kernel, t, half_space, groups)
        assert value == pytest.approx(expected_value, rel=1e-9)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)

    @on_every_gaussian
    def test_panels(self, t, half_space, monkeypatch, float64):
        kernel = normals(3, 23, dtype="float64")
        monkeypatch.setattr(_pair_sums, "_matrix_and_panel_size", lambda: (10, 16))
        with fresh_programs():
            value, gradient = energy_and_gradient(kernel, **gaussian(t, half_space))
        expected_value, expected = expected_value_and_gradient(kernel, t, half_space)
        assert value == pytest.approx(expected_value, rel=1e-9)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)

    @on_every_gaussian
    def test_random_groups_have_the_mean_of_all_pairs_on_average(
        self, t, half_space, monkeypatch, float64
    ):
        """The mean under the logarithm is unbiased, so its logarithm is too small on average."""
        kernel = normals(3, 5, dtype="float64")
        tensor = keras.ops.convert_to_tensor(kernel)
        potential = GaussianPotential.of(t, half_space)

        def draw(order):
            monkeypatch.setattr(keras.random, "shuffle", lambda x, seed: order)
            value, tangent, reciprocal = _minibatch._sampled_value_and_tangent(tensor, potential, 2)
            mean = keras.ops.exp(value)
            return value, mean, mean * tangent * reciprocal

        program = compiled(draw, ((5,), "int32"))
        orders = [np.array(order, "int32") for order in itertools.permutations(range(5))]
        draws = [program(keras.ops.convert_to_tensor(order)) for order in orders]
        sampled, mean, slope = (
            np.mean([keras.ops.convert_to_numpy(x) for x in xs], axis=0)
            for xs in zip(*draws, strict=True)
        )
        value, gradient = energy_and_gradient(kernel, **gaussian(t, half_space))
        assert math.log(mean) == pytest.approx(value, rel=1e-9)
        assert sampled < value
        np.testing.assert_allclose(slope / mean, gradient, rtol=1e-7, atol=1e-10)

    @on_every_gaussian
    @pytest.mark.parametrize("labels", [[3, 0, 3, 4], [3, -1, 3, 0]])
    def test_classes_of_a_batch(self, t, half_space, labels, float64):
        kernel = normals(3, 5, seed=1, dtype="float64")
        known = [label for label in labels if label >= 0]

        def energy(kernel):
            return class_definition(kernel, known, t, half_space)

        value, gradient = value_and_gradient(
            lambda k: class_energy(
                k, labels, bounded=False, ignore_class=-1, **gaussian(t, half_space)
            ),
            kernel,
        )
        assert value == pytest.approx(energy(kernel), rel=1e-9)
        expected = oracle.central_differences(energy, kernel, 1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)

    @on_every_gaussian
    def test_second_derivatives(self, t, half_space, float64):
        kernel = normals(3, 4, dtype="float64")
        options = gaussian(t, half_space)

        def squared_norm(k):
            return np.sum(energy_and_gradient(k, **options)[1] ** 2)

        _, got = second_order_gradient(kernel, **options)
        expected = oracle.central_differences(squared_norm, kernel, 1e-5)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


degenerate_kernels = {
    "opposite": np.array([[1.0, -1.0], [0.0, 0.0]]),
    "equal": np.ones((2, 2)),
    "orthogonal": np.eye(2),
    "close": np.array([[1.0, 1.0], [0.0, 1e-3]]),
}


class TestRange:
    """Values and gradients have the digits of float32 where the mean underflows, and elsewhere."""

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("t", [0.01, 15.0, 15.1, 50.0, 100.0])
    @pytest.mark.parametrize("name", degenerate_kernels)
    def test_two_neurons_at_any_distance(self, name, t, half_space):
        kernel = degenerate_kernels[name].astype("float32")
        value, gradient = energy_and_gradient(kernel, **gaussian(t, half_space))
        # Cosines are rounded to 6e-8, and the exponent is 2t times a cosine.
        expected_value, expected = expected_value_and_gradient(kernel, t, half_space, step=1e-6)
        assert value == pytest.approx(expected_value, abs=3e-7 * (1 + t))
        np.testing.assert_allclose(gradient, expected, atol=3e-7 * (1 + t))

    @on_every_gaussian
    def test_zero_neuron_is_orthogonal_to_all_others_and_gets_no_gradient(self, t, half_space):
        kernel = normals(3, 4)
        kernel[:, 1] = 0
        further = np.concatenate([kernel, [[0, 1, 0, 0]]])
        value, gradient = energy_and_gradient(kernel, **gaussian(t, half_space))
        expected = oracle.gaussian_energy(further, t, half_space)
        assert value == pytest.approx(expected, abs=3e-7 * (1 + t))
        assert not gradient[:, 1].any()
        assert np.all(np.any(gradient[:, [0, 2, 3]], axis=0))

    @on_every_gaussian
    def test_float32_agrees_with_float64_for_many_neurons(self, t, half_space, float64):
        kernel, options = normals(8, 300), gaussian(t, half_space)
        value, gradient = energy_and_gradient(kernel, **options)
        expected_value, expected = energy_and_gradient(kernel.astype("float64"), **options)
        assert expected_value == pytest.approx(oracle.gaussian_energy(kernel, t, half_space))
        assert value == pytest.approx(expected_value, abs=3e-7 * (1 + t))
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())

    @on_every_gaussian
    def test_single_neuron_has_constant_energy_and_zero_gradient(self, t, half_space):
        value, gradient = energy_and_gradient(normals(8, 1), **gaussian(t, half_space))
        assert value == pytest.approx(-4 * t if half_space else 0.0)
        assert not gradient.any()

    @on_every_gaussian
    def test_batch_without_classes_has_energy_zero(self, t, half_space):
        value, gradient = value_and_gradient(
            lambda k: class_energy(k, [-1, -1], ignore_class=-1, **gaussian(t, half_space)),
            normals(4, 7),
        )
        assert value == 0
        np.testing.assert_array_equal(gradient, np.zeros((4, 7)))

    @on_every_gaussian
    @pytest.mark.parametrize("index", [(1, 1), ...])
    def test_nan_in_a_kernel_gives_nan(self, t, half_space, index):
        kernel = normals(8, 4)
        kernel[index] = math.nan
        value, gradient = energy_and_gradient(kernel, **gaussian(t, half_space))
        assert math.isnan(value)
        assert np.any(np.isnan(gradient))


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"s": 2.0}, ValueError, "Received: s=2.0"),
            ({"s": 0}, ValueError, "Received: s=0"),
            ({"softening": 0.1}, ValueError, "Received: softening=0.1"),
            ({"softening": 0}, ValueError, "Received: softening=0"),
            ({"softening": "none"}, ValueError, "Received: softening='none'"),
            ({"t": 0}, ValueError, "Received: t=0"),
            ({"t": -1.0}, ValueError, "Received: t=-1.0"),
            ({"t": 101}, ValueError, "Received: t=101"),
            ({"t": math.nan}, ValueError, "Received: t=nan"),
            ({"t": "2"}, TypeError, "Received: t='2'"),
            ({"t": True}, TypeError, "Received: t=True"),
            ({"t": 2.0, "distance": "angular"}, ValueError, 't=2.0, distance="angular"'),
            ({"t": 2.0, "distance": "euclidean"}, ValueError, 't=2.0, distance="euclidean"'),
        ],
    )
    def test_invalid_arguments_are_named_in_the_error(self, options, error, message):
        with pytest.raises(error) as raised:
            hyperspherical_energy(normals(3, 4), **{"distance": "gaussian", **options})
        assert str(raised.value).endswith(message)

    def test_t_is_two_by_default(self):
        kernel = normals(3, 4)
        default = energy_value(kernel, distance="gaussian", softening="auto")
        assert default == energy_value(kernel, distance="gaussian", t=2)

    def test_one_program_serves_several_rates(self):
        kernel = normals(3, 4)
        values = [energy_value(kernel, distance="gaussian", t=t) for t in (0.5, 1.0, 7.0)]
        expected = [oracle.gaussian_energy(kernel, t, False) for t in (0.5, 1.0, 7.0)]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
