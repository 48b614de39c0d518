"""Projections: random, by groups of coordinates, learned."""

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from probes import normals, slopes

from keras_mhe import (
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    RandomProjection,
)
from keras_mhe.learned import LearnedProjection
from keras_mhe.projections import Projection

EVERY = [RandomProjection, AngleProjection, AdversarialProjection, GroupProjection]


def loss(kernel, projection, **options):
    return value_and_gradient(CoMHE(projection=projection, **options), kernel)


def draw(projection, kernel):
    return keras.ops.convert_to_numpy(projection.draw(kernel))


def auto_energy(points, half_space=True, **options):
    """The definition, softened by the dimension and number of the points themselves."""
    d, n = points.shape
    floor = oracle.auto_floor(2 * n if half_space else n, d)
    return oracle.energy(points, half_space=half_space, floor=floor, **options)


class TestRandomProjection:
    @pytest.mark.parametrize(
        ("s", "distance", "half_space"), [(2, "euclidean", True), (0, "angular", False)]
    )
    def test_the_mean_over_its_draws(self, s, distance, half_space, float64):
        kernel = normals(8, 4, dtype="float64")
        # Roomy: where neurons nearly meet, slopes of angles are held.
        projection = RandomProjection(dim=6, count=3, seed=7)
        draws = draw(projection, kernel)
        assert draws.shape == (3, 6, 8)

        def energy(kernel):
            options = {"s": s, "distance": distance, "half_space": half_space}
            return np.mean([auto_energy(p @ kernel, **options) for p in draws])

        value, gradient = loss(kernel, projection, s=s, distance=distance, half_space=half_space)
        assert value == pytest.approx(energy(kernel), rel=1e-6)
        np.testing.assert_allclose(gradient, oracle.slopes(energy, kernel), rtol=1e-4, atol=1e-6)

    def test_groups_of_neurons_share_the_draws(self, float64):
        kernel = normals(6, 8, dtype="float64")
        projection = RandomProjection(dim=3, count=2)
        draws = keras.ops.convert_to_numpy(projection.draw(kernel, groups=2))
        parts = (kernel[:, :4], kernel[:, 4:])
        expected = np.mean([auto_energy(p @ part) for part in parts for p in draws])
        value, _ = loss(kernel, projection, groups=2)
        assert value == pytest.approx(expected, rel=1e-6)

    def test_draws_are_standard_normal(self):
        draws = draw(RandomProjection(dim=40, count=20), normals(200, 3)).ravel()
        assert abs(draws.mean()) < 0.01  # 0.0025 is the deviation of the mean of so many
        assert draws.std() == pytest.approx(1, abs=0.01)
        assert np.mean(draws**4) == pytest.approx(3, abs=0.1)
        correlation = np.corrcoef(draws.reshape(20, -1))
        assert np.abs(correlation - np.eye(20)).max() < 0.06  # 0.011 each

    def test_a_kernel_draws_anew_when_it_moves_and_only_then(self):
        kernel = normals(50, 4)
        moved = kernel.copy()
        moved[0, 0] = np.nextafter(moved[0, 0], np.float32(9))
        projection = RandomProjection(dim=2, count=3)
        np.testing.assert_array_equal(draw(projection, kernel), draw(projection, kernel))
        assert not np.any(draw(projection, kernel) == draw(projection, moved))

    def test_the_seed_picks_another_stream(self):
        first, second = (draw(RandomProjection(2, 3, seed=seed), normals(50, 4)) for seed in (0, 1))
        assert not np.any(first == second)

    def test_one_draw_for_good_without_resampling(self):
        projection = RandomProjection(2, 3, resample=False)
        kernels = (normals(50, 4), normals(50, 4, seed=1))
        np.testing.assert_array_equal(*[draw(projection, kernel) for kernel in kernels])
        other = RandomProjection(2, 3, seed=1, resample=False)
        assert not np.any(draw(projection, kernels[0]) == draw(other, kernels[0]))

    @pytest.mark.parametrize("d", [2, 3])
    def test_neurons_of_no_more_coordinates_are_not_projected(self, d):
        kernel = normals(d, 7)
        value, gradient = loss(kernel, RandomProjection(dim=3))
        expected, expected_gradient = slopes(kernel, half_space=True)
        assert value == expected
        np.testing.assert_array_equal(gradient, expected_gradient)

    def test_draws_are_shown_for_kernels_that_are_projected(self):
        variable = keras.Variable(normals(3, 4, 5), dtype="bfloat16")
        assert draw(RandomProjection(2, 3), variable).shape == (3, 2, 12)
        with pytest.raises(ValueError, match=r"kernel\.shape=\(2, 5\)"):
            RandomProjection(2, 3).draw(normals(2, 5))

    def test_hard_kernels_stay_finite(self):
        for kernel in (np.zeros((6, 9)), np.ones((6, 9)), 1e30 * normals(6, 9), 1e-30 * np.eye(6)):
            value, gradient = loss(kernel.astype("float32"), RandomProjection(2, 3))
            assert np.isfinite(value)
            assert np.all(np.isfinite(gradient))

    def test_many_neurons_go_by_panels(self):
        kernel = normals(8, 1500)
        projection = RandomProjection(dim=6, count=2)
        expected = np.mean(
            [slopes(p @ kernel, half_space=True)[0] for p in draw(projection, kernel)]
        )
        assert loss(kernel, projection)[0] == pytest.approx(expected, rel=1e-5)


class TestGroupProjection:
    @pytest.mark.parametrize(("d", "count"), [(6, 3), (8, 3), (5, 5)])
    def test_the_mean_over_groups_of_coordinates(self, d, count, float64):
        kernel = normals(d, 5, dtype="float64")

        def energy(kernel):
            return np.mean([auto_energy(part) for part in np.array_split(kernel, count)])

        value, gradient = loss(kernel, GroupProjection(count))
        assert value == pytest.approx(energy(kernel), rel=1e-6)
        np.testing.assert_allclose(gradient, oracle.slopes(energy, kernel), rtol=1e-4, atol=1e-6)

    def test_groups_of_neurons(self, float64):
        kernel = normals(7, 6, dtype="float64")
        parts = [part for half in np.split(kernel, 2, axis=1) for part in np.array_split(half, 3)]
        sizes = [len(part) for part in parts]
        expected = np.average([auto_energy(part) for part in parts])
        assert sizes == [3, 2, 2, 3, 2, 2]
        assert loss(kernel, GroupProjection(3), groups=2)[0] == pytest.approx(expected, rel=1e-6)

    def test_more_groups_than_coordinates_are_refused(self):
        with pytest.raises(ValueError, match="count=4, neurons of 3 coordinates"):
            CoMHE(projection=GroupProjection(4))(normals(3, 5))


class TestConfiguration:
    @pytest.mark.parametrize("cls", EVERY)
    def test_saved_and_loaded(self, cls):
        projection = cls(3)
        config = keras.saving.serialize_keras_object(projection)
        assert config["registered_name"].startswith("keras_mhe>")
        assert keras.saving.deserialize_keras_object(config) == projection

    def test_integers_of_numpy_become_pythons(self):
        projection = RandomProjection(np.int64(3), np.int32(2), seed=np.uint8(1))
        assert repr(projection) == "RandomProjection(dim=3, count=2, seed=1, resample=True)"
        assert {type(v) for v in projection.get_config().values()} == {int, bool}

    @pytest.mark.parametrize("cls", [Projection, LearnedProjection])
    def test_bases_are_no_projections(self, cls):
        with pytest.raises(TypeError, match="abstract"):
            cls()

    @pytest.mark.parametrize(
        ("cls", "options", "error", "words"),
        [
            (RandomProjection, {"dim": 0}, ValueError, "dim=0"),
            (RandomProjection, {"count": 0}, ValueError, "count=0"),
            (RandomProjection, {"dim": 2.5}, TypeError, "dim=2.5"),
            (RandomProjection, {"seed": -1}, ValueError, "seed=-1"),
            (RandomProjection, {"seed": 2**31}, ValueError, f"seed={2**31}"),
            (RandomProjection, {"resample": 1}, TypeError, "resample=1"),
            (AngleProjection, {"dim": -3}, ValueError, "dim=-3"),
            (AngleProjection, {"learning_rate": -0.1}, ValueError, "learning_rate=-0.1"),
            (AngleProjection, {"steps": 0}, ValueError, "steps=0"),
            (AdversarialProjection, {"unroll": "yes"}, TypeError, "unroll='yes'"),
            (AdversarialProjection, {"dim": True}, TypeError, "dim=True"),
            (GroupProjection, {"count": 0}, ValueError, "count=0"),
        ],
    )
    def test_bad_arguments_are_named_at_construction(self, cls, options, error, words):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(words)
