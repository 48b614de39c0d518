"""The unit of the loss: the same factor has the same meaning in every layer."""

import keras
import numpy as np
import pytest
from helpers import energy_value, normals, on_compiled_and_other_steps

from keras_mhe import MHE, CoMHE, GroupProjection, HalfSpaceMHE, RandomProjection
from keras_mhe.reference import attainable_energy, uniform_energy

SIZES = [(10, 2), (10, 3), (10, 64), (32, 288), (100, 3), (64, 1024)]


def loss(regularizer, kernel):
    return float(keras.ops.convert_to_numpy(regularizer(kernel.astype("float32"))))


def position(energy, n, d, **options):
    options = {"softening": "auto", **options}
    best = attainable_energy(n, d, **options)
    return (energy - best) / (uniform_energy(n, d, **options) - best)


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_random_neurons_lose_the_factor_in_every_layer(n, d, half_space):
    regularizer = MHE(3.0, half_space=half_space, scale="position")
    losses = [loss(regularizer, normals(d, n, seed=seed)) for seed in range(10)]
    error = max(np.std(losses, ddof=1) / np.sqrt(10), 1e-3)
    assert abs(np.mean(losses) - 3.0) < 5 * error


@pytest.mark.parametrize(
    ("kernel", "half_space"),
    [
        (np.eye(8), True),
        (np.eye(8)[:, :1], True),
        (np.concatenate([np.eye(8), -np.eye(8)], axis=1), False),
    ],
    ids=["orthonormal", "one", "cross-polytope"],
)
def test_neurons_that_are_best_lose_nothing(kernel, half_space):
    assert abs(loss(MHE(1.0, half_space=half_space, scale="position"), kernel)) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"s": 0},
        {"s": 1, "distance": "angular"},
        {"softening": 0.5},
        {"distance": "gaussian"},
        {"distance": "gaussian", "t": 30.0},
    ],
)
def test_every_potential_has_its_own_unit(options):
    kernel = normals(6, 20)
    energy = energy_value(kernel, half_space=True, **options)
    expected = 2 * position(energy, 20, 6, half_space=True, **options)
    got = loss(HalfSpaceMHE(2.0, scale="position", **options), kernel)
    assert got == pytest.approx(expected, rel=1e-4)


def test_groups_use_the_neurons_of_a_group():
    kernel = normals(6, 20)
    expected = position(energy_value(kernel, groups=2), 10, 6)
    assert loss(MHE(scale="position", groups=2), kernel) == pytest.approx(expected, rel=1e-4)


def test_random_groups_use_all_neurons():
    kernel = normals(6, 40)
    unit = uniform_energy(40, 6, softening="auto") - attainable_energy(40, 6)
    change = loss(MHE(sample=8), kernel) - attainable_energy(40, 6)
    got = loss(MHE(sample=8, scale="position"), kernel)
    assert got == pytest.approx(change / unit, rel=1e-4)


@pytest.mark.parametrize(
    ("projection", "dimensions"),
    [(RandomProjection(dim=4), [(1, 4)]), (GroupProjection(3), [(1 / 3, 4), (2 / 3, 3)])],
)
def test_projections_use_the_dimensions_after_projection(projection, dimensions):
    kernel = normals(10, 12)
    options = {"half_space": True, "softening": "auto"}
    best = sum(share * attainable_energy(12, d, **options) for share, d in dimensions)
    random = sum(share * uniform_energy(12, d, **options) for share, d in dimensions)
    energy = loss(CoMHE(projection=projection), kernel)
    got = loss(CoMHE(projection=projection, scale="position"), kernel)
    assert got == pytest.approx((energy - best) / (random - best), rel=1e-4)


def test_neurons_of_one_coordinate_lose_nothing():
    with pytest.warns(UserWarning, match="no directions"):
        assert loss(MHE(scale="position"), np.array([[1.0, 1.0, -1.0, 1.0]])) == 0


def test_unknown_scales_raise_an_error():
    with pytest.raises(ValueError, match="scale='rank'"):
        MHE(scale="rank")


@on_compiled_and_other_steps
@pytest.mark.parametrize("t", [2.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_training_with_a_gaussian_lowers_the_energy(t, jit_compile):
    dense = keras.layers.Dense(
        12,
        kernel_regularizer=HalfSpaceMHE(1.0, distance="gaussian", t=t),
        kernel_initializer=keras.initializers.RandomNormal(seed=0),
    )
    model = keras.Sequential([keras.Input((4,)), dense])
    model.compile(keras.optimizers.SGD(0.1), lambda y, p: 0.0 * p[:, 0], jit_compile=jit_compile)
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 1), "float32")
    before = energy_value(dense.kernel, distance="gaussian", t=t, half_space=True)
    losses = model.fit(x, y, batch_size=8, epochs=20, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert losses[-1] < before - 0.02
