"""MHP and MHC: learned poles and worst poles."""

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import normals
from uniformity import (
    assert_matches_definition,
    covering,
    on_spaces_and_groups,
    polarization,
)

from keras_mhe import MHC, MHP, HypersphericalRegularization
from keras_mhe.energies._neurons import neuron_matrix

POLES = {
    "mhp": (MHP, -1, -1, polarization),
    "mhp-1": (lambda *a, **k: MHP(*a, s=1, **k), -1, -1, lambda *a: polarization(*a, s=1)),
    "mhc": (MHC, 1, 1, covering),
}


@pytest.mark.parametrize("name", POLES)
class TestPoles:
    @on_spaces_and_groups
    def test_value_and_gradient_match_the_definition(self, name, half_space, groups, float64):
        make, sign, _, definition = POLES[name]
        pole = normals(4, seed=1, dtype="float64")
        softening = {} if name == "mhc" else {"softening": 0}
        regularizer = make(1.0, half_space=half_space, groups=groups, **softening)
        kernel = normals(4, 6, dtype="float64")
        assert_matches_definition(
            regularizer, lambda k: sign * definition(k, pole, half_space), kernel, {"pole": pole}
        )

    @on_spaces_and_groups
    def test_learned_pole_follows_its_gradient(self, name, half_space, groups, float64):
        make, _, direction, definition = POLES[name]
        pole = normals(4, seed=1, dtype="float64")
        softening = {} if name == "mhc" else {"softening": 0}
        regularizer = make(half_space=half_space, groups=groups, learning_rate=0.3, **softening)
        kernel = normals(4, 6, dtype="float64")
        parts = np.split(kernel, groups or 1, axis=1)

        def energy(v):
            return np.mean([definition(part, v, half_space) for part in parts])

        expected = pole + direction * 0.3 * oracle.central_differences(energy, pole)
        state = {"pole": keras.ops.convert_to_tensor(pole)}
        got = regularizer.update_state(neuron_matrix(kernel, groups=groups), state)["pole"]
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mhp", "mhc"])
class TestRobustness:
    @pytest.mark.once
    @pytest.mark.parametrize("half_space", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_worst_pole_is_at_least_as_bad_as_every_pole_of_a_fine_grid(self, name, half_space):
        make, sign, direction, definition = POLES[name]
        kernel = normals(3, 12)
        # A Fibonacci spiral of 4,000 points that are about 3 degrees apart.
        i = np.arange(4000) + 0.5
        height, angle = 1 - 2 * i / 4000, np.pi * (1 + 5**0.5) * i
        radius = np.sqrt(1 - height**2)
        grid = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        values = [definition(kernel, pole, half_space) for pole in grid]
        worst = max(values) if direction > 0 else min(values)
        value, gradient = value_and_gradient(make(1.0, half_space=half_space, pole="worst"), kernel)
        assert direction * (sign * value - worst) > -1e-3 * abs(worst)
        assert np.any(gradient)

    @pytest.mark.parametrize("half_space", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_degenerate_kernels_give_finite_values_gradients_and_poles(self, name, half_space):
        make, *_ = POLES[name]
        pole = keras.ops.convert_to_tensor(np.ones(3, "float32"))
        regularizer = make(1.0, half_space=half_space)
        kernels = [np.ones((3, 6)), np.zeros((3, 6)), 1e30 * normals(3, 6)]
        # Neurons opposite to the pole; in half space, their mirror images are at the pole.
        kernels += [-np.ones((3, 6)), -np.ones((3, 1))]
        for kernel in kernels:
            matrix = kernel.astype("float32")
            for state in ({}, {"pole": pole})[: kernel.shape[1]]:
                value, gradient = value_and_gradient(
                    lambda k, s=state: regularizer.energy(k, s), matrix
                )
                assert np.isfinite(value)
                assert np.all(np.isfinite(gradient))
            tensor = keras.ops.convert_to_tensor(matrix)
            updated = regularizer.update_state(tensor, {"pole": pole})["pole"]
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(updated)))


@pytest.mark.parametrize("cls", [MHP, pytest.param(MHC, marks=pytest.mark.slow)])
def test_training_updates_the_pole_and_saving_keeps_it(cls, tmp_path):
    keras.utils.set_random_seed(0)
    wrapper = HypersphericalRegularization(keras.layers.Conv2D(6, 3), cls(half_space=True))
    pooling = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((8, 8, 2)), wrapper, pooling])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    assert {name: tuple(v.shape) for name, v in wrapper.state.items()} == {"pole": (18,)}
    before = keras.ops.convert_to_numpy(wrapper.state["pole"])
    model.fit(normals(16, 8, 8, 2), np.zeros((16, 6)), batch_size=4, verbose=0)
    after = keras.ops.convert_to_numpy(wrapper.state["pole"])
    assert np.any(after != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[0].state["pole"], after)
    assert [float(x) for x in loaded.losses] == [float(x) for x in model.losses]
