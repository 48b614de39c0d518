"""Learned projections: gradient steps, and the energy after one step, match the definition."""

import keras
import numpy as np
import oracle
import pytest
from helpers import normals

from keras_mhe._backend import compiled
from keras_mhe.energies import _blocks
from keras_mhe.energies._gaussian import GaussianPotential
from keras_mhe.energies._riesz import RieszPotential
from keras_mhe.regularizers import _projection_steps

EPSILON = 0.1


def potential(s=2.0, distance="euclidean", half_space=False):
    return RieszPotential(float(s), distance == "angular", half_space, EPSILON)


def to_numpy(tensors):
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def program_of(function, *arrays):
    """Compiles a function for arrays of these shapes and dtypes, as the package does."""
    return compiled(function, *[(array.shape, str(array.dtype)) for array in arrays])


def gradient_steps(matrix, projection, *options):
    """Returns the projection after gradient steps."""
    arrays = map(keras.ops.convert_to_tensor, (matrix, projection))
    return _projection_steps.gradient_steps(*arrays, *options)


def value_and_gradient_after_step(*arguments):
    value, tangent, reciprocal = _projection_steps.value_and_tangent_after_step(*arguments)
    return value, tangent * reciprocal


def energy_after_step(matrix, projection, objective, rate, potential):
    """Returns the energy after a step and its gradient, both by one program."""

    def function(matrix, projection):
        return value_and_gradient_after_step(matrix, projection, objective, rate, potential)

    arrays = (matrix, projection)
    return program_of(function, *arrays)(*map(keras.ops.convert_to_tensor, arrays))


def objectives(s, distance):
    """Returns each objective with the sign of its steps and its definition."""
    full_space_energy = _projection_steps.FullSpaceEnergy(potential(s, distance))
    return {
        "angle": (_projection_steps.CosineDistance(), -1, oracle.cosine_distance),
        "adversarial": (
            full_space_energy,
            +1,
            lambda p, w: oracle.energy(p @ w, s=s, distance=distance, epsilon=EPSILON),
        ),
    }


on_every_objective = pytest.mark.parametrize(
    ("name", "s", "distance"),
    [
        ("angle", 2, "euclidean"),
        ("adversarial", 2, "euclidean"),
        ("adversarial", 0, "euclidean"),
        ("adversarial", 0, "angular"),
        ("adversarial", 1.5, "angular"),
    ],
)


class TestSteps:
    @on_every_objective
    def test_steps_follow_the_gradient_in_the_projection(self, name, s, distance, float64):
        matrix = normals(4, 5, dtype="float64")
        projection = normals(2, 4, seed=1, dtype="float64")
        objective, sign, definition = objectives(s, distance)[name]
        expected = projection
        for _ in range(2):
            gradient = oracle.central_differences(lambda p: definition(p, matrix), expected)
            expected = expected + sign * 0.3 * gradient
        got = gradient_steps(matrix, projection, objective, 0.3, 2)
        np.testing.assert_allclose(*to_numpy([got, expected]), rtol=1e-5, atol=1e-6)

    def test_groups_of_neurons_share_a_projection(self, float64):
        matrix = normals(2, 4, 5, dtype="float64")
        projection = normals(2, 4, seed=1, dtype="float64")
        squares = [oracle.cosine_distance(projection, part) ** 2 for part in matrix]

        def joint_distance(p):
            return np.sqrt(sum(oracle.cosine_distance(p, part) ** 2 for part in matrix))

        assert joint_distance(projection) == pytest.approx(np.sqrt(sum(squares)))
        expected = projection - 0.1 * oracle.central_differences(joint_distance, projection)
        got = gradient_steps(matrix, projection, _projection_steps.CosineDistance(), 0.1, 1)
        np.testing.assert_allclose(*to_numpy([got, expected]), rtol=1e-6, atol=1e-7)


class TestEnergyAfterStep:
    @pytest.mark.parametrize(
        ("name", "s", "distance", "shape"),
        [
            ("angle", 2, "euclidean", (2, 3, 4)),
            ("adversarial", 0, "euclidean", (4, 5)),
            ("adversarial", 1.5, "angular", (2, 3, 4)),
        ],
    )
    def test_gradient_passes_through_the_step(self, name, s, distance, shape, float64):
        """Compares with nested central differences, for one matrix and for two groups."""
        matrix = normals(*shape, seed=2, dtype="float64")
        projection = normals(2, shape[-2], seed=3, dtype="float64")
        objective, sign, definition = objectives(s, distance)[name]
        groups = matrix if len(shape) == 3 else matrix[None]
        size = len(groups)

        def objective_value(p, parts):
            values = [definition(p, part) for part in parts]
            return np.linalg.norm(values) if name == "angle" else np.mean(values)

        def energy(matrix):
            parts = matrix.reshape(size, *shape[-2:])
            gradient = oracle.central_differences(lambda p: objective_value(p, parts), projection)
            moved = projection + sign * 0.2 * gradient
            options = {"s": s, "distance": distance, "half_space": True, "epsilon": EPSILON}
            return np.mean([oracle.energy(moved @ part, **options) for part in parts])

        value, gradient = energy_after_step(
            matrix, projection, objective, 0.2, potential(s, distance, half_space=True)
        )
        expected = oracle.central_differences(energy, matrix)
        assert float(value) == pytest.approx(energy(matrix), rel=1e-6)
        np.testing.assert_allclose(
            *to_numpy([gradient, expected]), rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )

    def test_gradient_of_a_gaussian_passes_through_the_step(self, float64):
        matrix, projection = (normals(*x, seed=4, dtype="float64") for x in ((4, 5), (2, 4)))
        objective, sign, definition = objectives(2, "euclidean")["angle"]

        def energy(matrix):
            gradient = oracle.central_differences(lambda p: definition(p, matrix), projection)
            return oracle.gaussian_energy((projection + sign * 0.2 * gradient) @ matrix, 2.0, True)

        value, gradient = energy_after_step(
            matrix, projection, objective, 0.2, GaussianPotential.of(2.0, True)
        )
        expected = oracle.central_differences(energy, matrix)
        assert float(value) == pytest.approx(energy(matrix), rel=1e-6)
        np.testing.assert_allclose(
            *to_numpy([gradient, expected]), rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )

    @pytest.mark.parametrize("name", [pytest.param("angle", marks=pytest.mark.slow), "adversarial"])
    def test_blocks_do_not_change_the_result(self, name, monkeypatch, float64):
        shape = (2, 4, 33)
        matrix = normals(*shape, dtype="float64")
        projection = normals(3, shape[-2], seed=1, dtype="float64")
        objective, _, _ = objectives(2, "euclidean")[name]

        def compute():
            return to_numpy(
                energy_after_step(matrix, projection, objective, 0.1, potential(half_space=True))
            )

        whole = compute()
        monkeypatch.setattr(_blocks, "_BLOCK", 16 * shape[-1])
        for got, expected in zip(compute(), whole, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", [pytest.param("angle", marks=pytest.mark.slow), "adversarial"])
    def test_degenerate_kernels_give_finite_energies_and_steps(self, name):
        objective, _, _ = objectives(2, "euclidean")[name]
        degenerate = {
            "zero": np.zeros((6, 9)),
            "equal": np.ones((6, 9)),
            "opposite": np.outer(np.ones(6), (-1.0) ** np.arange(9)),
            "one zero neuron": normals(6, 9) * (np.arange(9) > 0),
            "one neuron": normals(6, 1),
            "huge": 1e30 * normals(6, 9),
            "tiny": 1e-30 * normals(6, 9),
        }
        projection = normals(2, 6, seed=1)
        programs = {}
        for kind, kernel in degenerate.items():
            arrays = (kernel.astype("float32"), projection)
            if kernel.shape not in programs:
                programs[kernel.shape] = [
                    program_of(function, *arrays)
                    for function in (
                        lambda m, p: value_and_gradient_after_step(
                            m, p, objective, 0.1, potential(half_space=True)
                        ),
                        lambda m, p: _projection_steps.gradient_steps(m, p, objective, 0.1, 1),
                    )
                ]
            energy, step = programs[kernel.shape]
            value, gradient = energy(*map(keras.ops.convert_to_tensor, arrays))
            assert np.isfinite(float(value)), kind
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(gradient))), kind
            moved = step(*map(keras.ops.convert_to_tensor, arrays))
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(moved))), kind
