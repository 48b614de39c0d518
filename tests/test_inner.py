"""Learned projections: their steps and the energy after one more are those of the definition."""

import keras
import numpy as np
import oracle
import pytest
from probes import normals

from keras_mhe import inner, strips
from keras_mhe._backend import compiled
from keras_mhe.potentials import Potential

FLOOR = 0.1


def potential(s=2.0, distance="euclidean", half_space=False):
    return Potential(float(s), distance == "angular", half_space, FLOOR)


def numpy(tensors):
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def program_of(function, *arrays):
    """A function of such arrays as one program, as the package runs it."""
    return compiled(function, *[(array.shape, str(array.dtype)) for array in arrays])


def after_step(matrix, projection, objective, rate, potential):
    """Value and gradient by one program."""

    def function(matrix, projection):
        return inner.value_and_gradient_after_step(matrix, projection, objective, rate, potential)

    arrays = (matrix, projection)
    return program_of(function, *arrays)(*map(keras.ops.convert_to_tensor, arrays))


def objectives(s, distance):
    """Each objective, its sign, and the same from its definition."""
    crowding = inner.FullSpaceEnergy(potential(s, distance))
    return {
        "angle": (inner.CosineDistance(), -1, oracle.cosine_distance),
        "adversarial": (
            crowding,
            +1,
            lambda p, w: oracle.energy(p @ w, s=s, distance=distance, floor=FLOOR),
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
    def test_a_step_follows_the_gradient_in_the_projection(self, name, s, distance, float64):
        matrix = normals(4, 5, dtype="float64")
        projection = normals(2, 4, seed=1, dtype="float64")
        objective, sign, definition = objectives(s, distance)[name]
        expected = projection
        for _ in range(2):
            gradient = oracle.slopes(lambda p: definition(p, matrix), expected)
            expected = expected + sign * 0.3 * gradient
        got = inner.stepped(matrix, projection, objective, 0.3, 2)
        np.testing.assert_allclose(*numpy([got, expected]), rtol=1e-5, atol=1e-6)

    def test_groups_share_a_projection(self, float64):
        matrix = normals(2, 4, 5, dtype="float64")
        projection = normals(2, 4, seed=1, dtype="float64")
        squares = [oracle.cosine_distance(projection, part) ** 2 for part in matrix]

        def both(p):
            return np.sqrt(sum(oracle.cosine_distance(p, part) ** 2 for part in matrix))

        assert both(projection) == pytest.approx(np.sqrt(sum(squares)))
        expected = projection - 0.1 * oracle.slopes(both, projection)
        got = inner.stepped(matrix, projection, inner.CosineDistance(), 0.1, 1)
        np.testing.assert_allclose(*numpy([got, expected]), rtol=1e-6, atol=1e-7)


class TestEnergyAfterStep:
    @pytest.mark.parametrize(
        ("name", "s", "distance", "shape"),
        [
            ("angle", 2, "euclidean", (2, 3, 4)),
            ("adversarial", 0, "euclidean", (4, 5)),
            ("adversarial", 1.5, "angular", (2, 3, 4)),
        ],
    )
    def test_value_and_gradient_pass_through_the_step(self, name, s, distance, shape, float64):
        """Against differences of differences, for one matrix of neurons and for two groups."""
        matrix = normals(*shape, seed=2, dtype="float64")
        projection = normals(2, shape[-2], seed=3, dtype="float64")
        objective, sign, definition = objectives(s, distance)[name]
        groups = matrix if len(shape) == 3 else matrix[None]
        size = len(groups)

        def inner_value(p, parts):
            values = [definition(p, part) for part in parts]
            return np.linalg.norm(values) if name == "angle" else np.mean(values)

        def energy(matrix):
            parts = matrix.reshape(size, *shape[-2:])
            gradient = oracle.slopes(lambda p: inner_value(p, parts), projection)
            moved = projection + sign * 0.2 * gradient
            options = {"s": s, "distance": distance, "half_space": True, "floor": FLOOR}
            return np.mean([oracle.energy(moved @ part, **options) for part in parts])

        value, gradient = after_step(
            matrix, projection, objective, 0.2, potential(s, distance, half_space=True)
        )
        expected = oracle.slopes(energy, matrix)
        assert float(value) == pytest.approx(energy(matrix), rel=1e-6)
        np.testing.assert_allclose(
            *numpy([gradient, expected]), rtol=1e-4, atol=1e-4 * np.abs(expected).max()
        )

    @pytest.mark.parametrize("name", [pytest.param("angle", marks=pytest.mark.slow), "adversarial"])
    def test_strips_change_nothing(self, name, monkeypatch, float64):
        shape = (2, 4, 33)
        matrix = normals(*shape, dtype="float64")
        projection = normals(3, shape[-2], seed=1, dtype="float64")
        objective, _, _ = objectives(2, "euclidean")[name]

        def both():
            return numpy(after_step(matrix, projection, objective, 0.1, potential(half_space=True)))

        whole = both()
        monkeypatch.setattr(strips, "_STRIP", 16 * shape[-1])
        for got, expected in zip(both(), whole, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", [pytest.param("angle", marks=pytest.mark.slow), "adversarial"])
    def test_hard_kernels_stay_finite(self, name):
        objective, _, _ = objectives(2, "euclidean")[name]
        hard = {
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
        for kind, kernel in hard.items():
            arrays = (kernel.astype("float32"), projection)
            if kernel.shape not in programs:
                programs[kernel.shape] = [
                    program_of(function, *arrays)
                    for function in (
                        lambda m, p: inner.value_and_gradient_after_step(
                            m, p, objective, 0.1, potential(half_space=True)
                        ),
                        lambda m, p: inner.stepped(m, p, objective, 0.1, 1),
                    )
                ]
            energy, step = programs[kernel.shape]
            value, gradient = energy(*map(keras.ops.convert_to_tensor, arrays))
            assert np.isfinite(float(value)), kind
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(gradient))), kind
            moved = step(*map(keras.ops.convert_to_tensor, arrays))
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(moved))), kind
