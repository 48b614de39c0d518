"""Projections: random projections, groups of coordinates, and arguments of all classes."""

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import energy_and_gradient, normals

from keras_mhe import (
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    RandomProjection,
)
from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.energies._programs import program_for
from keras_mhe.reference import uniform_energy
from keras_mhe.regularizers._learned_projections import LearnedProjection
from keras_mhe.regularizers._projection_steps import FullSpaceEnergy, gradient_steps
from keras_mhe.regularizers._projections import Projection

DISTRIBUTIONS = pytest.mark.parametrize("distribution", ["normal", "sign"])
PROJECTIONS = [RandomProjection, AngleProjection, AdversarialProjection, GroupProjection]


def loss(kernel, projection, **options):
    return value_and_gradient(CoMHE(projection=projection, bounded=False, **options), kernel)


def draw(projection, kernel):
    return keras.ops.convert_to_numpy(projection.draw(kernel))


def auto_energy(points, half_space=True, **options):
    """The energy by its definition, with epsilon from the number and dimension of the points."""
    d, n = points.shape
    epsilon = oracle.auto_epsilon(2 * n if half_space else n, d)
    return oracle.energy(points, half_space=half_space, epsilon=epsilon, **options)


class TestRandomProjection:
    @pytest.mark.parametrize(
        ("s", "distance", "half_space"), [(2, "euclidean", True), (0, "angular", False)]
    )
    @DISTRIBUTIONS
    def test_energy_is_the_mean_over_draws(self, distribution, s, distance, half_space, float64):
        kernel = normals(8, 4, dtype="float64")
        # Few neurons in 6 dimensions: none are so close that the angular slope is constant.
        projection = RandomProjection(dim=6, count=3, seed=7, distribution=distribution)
        draws = draw(projection, kernel)
        assert draws.shape == (3, 6, 8)

        def energy(kernel):
            options = {"s": s, "distance": distance, "half_space": half_space}
            return np.mean([auto_energy(p @ kernel, **options) for p in draws])

        value, gradient = loss(kernel, projection, s=s, distance=distance, half_space=half_space)
        assert value == pytest.approx(energy(kernel), rel=1e-6)
        np.testing.assert_allclose(
            gradient, oracle.central_differences(energy, kernel), rtol=1e-4, atol=1e-6
        )

    @DISTRIBUTIONS
    def test_groups_of_neurons_share_draws(self, distribution, float64):
        kernel = normals(6, 8, dtype="float64")
        projection = RandomProjection(dim=3, count=2, distribution=distribution)
        draws = keras.ops.convert_to_numpy(projection.draw(kernel, groups=2))
        parts = (kernel[:, :4], kernel[:, 4:])
        expected = np.mean([auto_energy(p @ part) for part in parts for p in draws])
        value, _ = loss(kernel, projection, groups=2)
        assert value == pytest.approx(expected, rel=1e-6)

    def test_draws_are_standard_normal(self):
        draws = draw(RandomProjection(dim=40, count=20), normals(200, 3)).ravel()
        assert abs(draws.mean()) < 0.01  # the mean has a deviation of 0.0025
        assert draws.std() == pytest.approx(1, abs=0.01)
        assert np.mean(draws**4) == pytest.approx(3, abs=0.1)
        correlation = np.corrcoef(draws.reshape(20, -1))
        assert np.abs(correlation - np.eye(20)).max() < 0.06  # each has a deviation of 0.011

    @pytest.mark.parametrize("d", [41, 200])
    def test_draws_of_signs_are_uncorrelated_rows_of_signs(self, d):
        draws = draw(RandomProjection(dim=40, count=20, distribution="sign"), normals(d, 3))
        assert np.all(np.abs(draws) == 1)
        rows = draws.reshape(-1, d)
        assert len(np.unique(rows, axis=0)) == len(rows)
        # Each has a deviation of at most 0.035. The mean of a coordinate does not matter: angles do
        # not depend on the sign of a row.
        correlation = rows.T @ rows / len(rows)
        assert np.abs(correlation - np.eye(d)).max() < 0.18

    def test_signs_of_different_draws_are_independent(self):
        projection = RandomProjection(dim=2, count=1, distribution="sign")
        rows = [draw(projection, normals(400, 4, seed=k)).ravel() for k in range(100)]
        # Each has a deviation of at most 0.05.
        assert np.abs(np.corrcoef(rows) - np.eye(100)).max() < 0.3
        assert abs(np.mean(rows)) < 0.02

    @pytest.mark.parametrize("clusters", [1, 8, 64])
    def test_signs_give_the_energy_of_normal_numbers(self, clusters):
        """Means over 20 projections differ by 0.3 % and 0.7 % (8 clusters) from draw to draw."""
        centers = normals(150, clusters)[:, np.arange(64) % clusters]
        kernel = (centers + normals(150, 64, seed=1)).astype("float32")
        energies = [
            np.mean(
                [loss(kernel, RandomProjection(seed=k, distribution=form))[0] for k in range(4)]
            )
            for form in ("normal", "sign")
        ]
        assert energies[1] == pytest.approx(energies[0], rel=0.015)

    def test_draws_change_if_and_only_if_the_kernel_changes(self):
        kernel = normals(50, 4)
        changed = kernel.copy()
        changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
        projection = RandomProjection(dim=2, count=3)
        np.testing.assert_array_equal(draw(projection, kernel), draw(projection, kernel))
        assert not np.any(draw(projection, kernel) == draw(projection, changed))

    def test_different_seeds_give_different_draws(self):
        first, second = (draw(RandomProjection(2, 3, seed=seed), normals(50, 4)) for seed in (0, 1))
        assert not np.any(first == second)

    def test_without_resampling_all_kernels_get_the_same_draw(self):
        projection = RandomProjection(2, 3, resample=False)
        kernels = (normals(50, 4), normals(50, 4, seed=1))
        np.testing.assert_array_equal(*[draw(projection, kernel) for kernel in kernels])
        other = RandomProjection(2, 3, seed=1, resample=False)
        assert not np.any(draw(projection, kernels[0]) == draw(other, kernels[0]))

    @pytest.mark.parametrize("d", [2, 3])
    def test_neurons_of_at_most_dim_coordinates_are_not_projected(self, d):
        kernel = normals(d, 7)
        value, gradient = loss(kernel, RandomProjection(dim=3))
        expected, expected_gradient = energy_and_gradient(kernel, half_space=True)
        assert value == expected
        np.testing.assert_array_equal(gradient, expected_gradient)

    def test_draw_returns_projections_or_rejects_the_kernel(self):
        variable = keras.Variable(normals(3, 4, 5), dtype="bfloat16")
        assert draw(RandomProjection(2, 3), variable).shape == (3, 2, 12)
        with pytest.raises(ValueError, match=r"kernel\.shape=\(2, 5\)"):
            RandomProjection(2, 3).draw(normals(2, 5))

    def test_degenerate_kernels_give_finite_values_and_gradients(self):
        for kernel in (np.zeros((6, 9)), np.ones((6, 9)), 1e30 * normals(6, 9), 1e-30 * np.eye(6)):
            value, gradient = loss(kernel.astype("float32"), RandomProjection(2, 3))
            assert np.isfinite(value)
            assert np.all(np.isfinite(gradient))

    def test_large_kernels_have_the_mean_energy_over_draws(self):
        kernel = normals(8, 1500)
        projection = RandomProjection(dim=6, count=2)
        expected = np.mean(
            [energy_and_gradient(p @ kernel, half_space=True)[0] for p in draw(projection, kernel)]
        )
        assert loss(kernel, projection)[0] == pytest.approx(expected, rel=1e-5)


class TestAdversarialProjection:
    """With constant neurons and large steps, as if P moved faster than the neurons."""

    @pytest.mark.parametrize(("s", "dim", "factor", "offset"), [(2, 3, 2, 0), (0, 4, 1, 0.3466)])
    def test_projected_energy_stays_below_its_limit(self, s, dim, factor, offset):
        neurons, start = normals(16, 24), normals(dim, 16, seed=1)
        matrix = keras.ops.convert_to_tensor(neurons)
        state = {"projection": keras.ops.convert_to_tensor(start)}
        regularizer = CoMHE(1.0, s, projection=AdversarialProjection(dim, learning_rate=3.0))
        for _ in range(30):
            state = regularizer.update_state(matrix, state)
        projection = keras.ops.convert_to_numpy(state["projection"])
        first, last = (auto_energy(p @ neurons, False, s=s) for p in (start, projection))
        limit = factor * uniform_energy(24, dim, s, softening="auto") + offset
        assert first < last <= limit + 1e-4

    def test_steps_below_the_limit_have_the_bits_of_steps_without_limit(self):
        arrays = normals(40, 50), normals(30, 40, seed=1)
        potential = PotentialSpec().potential(50, 30)
        results = []
        for limit in (None, 2 * uniform_energy(50, 30)):
            objective = FullSpaceEnergy(potential, limit)
            tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
            program = program_for(gradient_steps, *tensors, options=(objective, 0.1, 10))
            results.append(keras.ops.convert_to_numpy(program(*tensors)))
        np.testing.assert_array_equal(*results)
        assert np.any(results[0] != arrays[1])


class TestGroupProjection:
    @pytest.mark.parametrize(("d", "count"), [(6, 3), (8, 3), (5, 2)])
    def test_energy_is_the_mean_over_groups_of_coordinates(self, d, count, float64):
        kernel = normals(d, 5, dtype="float64")

        def energy(kernel):
            return np.mean([auto_energy(part) for part in np.array_split(kernel, count)])

        value, gradient = loss(kernel, GroupProjection(count))
        assert value == pytest.approx(energy(kernel), rel=1e-6)
        np.testing.assert_allclose(
            gradient, oracle.central_differences(energy, kernel), rtol=1e-4, atol=1e-6
        )

    def test_energy_is_the_mean_over_groups_of_neurons_and_coordinates(self, float64):
        kernel = normals(7, 6, dtype="float64")
        parts = [part for half in np.split(kernel, 2, axis=1) for part in np.array_split(half, 3)]
        sizes = [len(part) for part in parts]
        expected = np.average([auto_energy(part) for part in parts])
        assert sizes == [3, 2, 2, 3, 2, 2]
        assert loss(kernel, GroupProjection(3), groups=2)[0] == pytest.approx(expected, rel=1e-6)

    def test_groups_of_one_coordinate_have_no_gradient(self):
        """Of four groups of seven coordinates, the last has one, and so only two directions."""
        kernel = normals(7, 5)
        groups = [kernel[i : i + 2] for i in (0, 2, 4, 6)]
        expected = np.mean([auto_energy(group, True) for group in groups])
        value, gradient = loss(kernel, GroupProjection(4))
        assert value == pytest.approx(expected, rel=1e-5)
        assert np.all(gradient[6] == 0)
        assert np.all(np.any(gradient[:6] != 0, axis=1))

    @pytest.mark.parametrize(("d", "count"), [(3, 4), (5, 5)])
    def test_groups_of_fewer_than_two_coordinates_raise_an_error(self, d, count):
        projection = GroupProjection(count)
        message = f"so that a group has two.*count={count}, neurons of {d} coordinates"
        with pytest.raises(ValueError, match=message):
            CoMHE(projection=projection)(normals(d, 5))
        with pytest.raises(ValueError, match=message):
            CoMHE(projection=projection, scale="position")(normals(d, 5))
        with pytest.raises(ValueError, match=message):
            projection.state_shapes(d)


class TestConfiguration:
    @pytest.mark.parametrize("cls", PROJECTIONS)
    def test_config_round_trip(self, cls):
        projection = cls(3)
        config = keras.saving.serialize_keras_object(projection)
        assert config["registered_name"].startswith("keras_mhe>")
        assert keras.saving.deserialize_keras_object(config) == projection

    def test_numpy_integers_become_python_integers(self):
        projection = RandomProjection(np.int64(3), np.int32(2), seed=np.uint8(1))
        assert repr(projection) == (
            "RandomProjection(dim=3, count=2, seed=1, resample=True, distribution='normal')"
        )
        assert {type(v) for v in projection.get_config().values()} == {int, bool, str}

    @pytest.mark.parametrize("cls", [Projection, LearnedProjection])
    def test_base_classes_are_abstract(self, cls):
        with pytest.raises(TypeError, match="abstract"):
            cls()

    @pytest.mark.parametrize("cls", [RandomProjection, AngleProjection, AdversarialProjection])
    def test_projections_to_one_dimension_raise_an_error(self, cls):
        with pytest.raises(ValueError, match=r"`dim`\. Expected an integer of at least 2\."):
            cls(dim=1)
        assert cls(dim=2).dimensions(5) == [(1.0, 2)]

    @pytest.mark.parametrize(
        ("cls", "options", "error", "message"),
        [
            (RandomProjection, {"dim": 0}, ValueError, "dim=0"),
            (RandomProjection, {"count": 0}, ValueError, "count=0"),
            (RandomProjection, {"dim": 2.5}, TypeError, "dim=2.5"),
            (RandomProjection, {"seed": -1}, ValueError, "seed=-1"),
            (RandomProjection, {"seed": 2**31}, ValueError, f"seed={2**31}"),
            (RandomProjection, {"resample": 1}, TypeError, "resample=1"),
            (RandomProjection, {"distribution": "signs"}, ValueError, "distribution='signs'"),
            (AngleProjection, {"dim": -3}, ValueError, "dim=-3"),
            (AngleProjection, {"learning_rate": -0.1}, ValueError, "learning_rate=-0.1"),
            (AngleProjection, {"steps": 0}, ValueError, "steps=0"),
            (AdversarialProjection, {"unroll": "yes"}, TypeError, "unroll='yes'"),
            (AdversarialProjection, {"dim": True}, TypeError, "dim=True"),
            (GroupProjection, {"count": 0}, ValueError, "count=0"),
        ],
    )
    def test_invalid_arguments_are_named_at_construction(self, cls, options, error, message):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(message)
