"""Separation, polarization, covering, Gram determinant: definitions and spread."""

import re
from pathlib import Path

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from probes import SPACES, normals

from keras_mhe import MGD, MHC, MHP, MHS, RMHP, HypersphericalRegularization
from keras_mhe.axes import neuron_matrix


def points(kernel, half_space):
    unit = kernel / np.linalg.norm(kernel, axis=0)
    return np.concatenate([unit, -unit], axis=1) if half_space else unit


def squares(x, y):
    return np.sum((x[:, :, None] - y[:, None, :]) ** 2, axis=0)


def separation(kernel, half_space, every=False):
    x = points(kernel, half_space)
    distance = squares(x, x) + 9 * np.eye(x.shape[1])
    n = kernel.shape[1]
    return -np.mean(np.sqrt(distance.min(axis=0)[:n])) if every else -distance.min()


def gram(kernel, half_space, jitter=1e-6):
    x = points(kernel, half_space)
    return -np.linalg.slogdet(np.exp(-squares(x, x)) + jitter * np.eye(x.shape[1]))[1]


def polarization(kernel, pole, half_space, s=2):
    v = pole[:, None] / np.linalg.norm(pole)
    return np.mean(squares(points(kernel, half_space), v) ** (-s / 2))


def covering(kernel, pole, half_space, gamma=10.0):
    v = pole[:, None] / np.linalg.norm(pole)
    return -np.log(np.mean(np.exp(-gamma * squares(points(kernel, half_space), v)))) / gamma


def agree(regularizer, definition, kernel, state=None):
    """Value and gradient are those of the definition, by differences."""
    groups = regularizer.groups or 1

    def energy(kernel):
        return np.mean([definition(part) for part in np.split(kernel, groups, axis=1)])

    state = {k: keras.ops.convert_to_tensor(v) for k, v in (state or {}).items()}
    value, gradient = value_and_gradient(
        lambda k: regularizer.energy(neuron_matrix(k, groups=groups), state), kernel
    )
    assert value == pytest.approx(energy(kernel), rel=1e-6)
    expected = oracle.slopes(energy, kernel)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


on_spaces_and_groups = pytest.mark.parametrize(
    ("half_space", "groups"), [(False, None), (True, None), (True, 2)]
)


class TestSeparation:
    @pytest.mark.parametrize(
        ("half_space", "groups", "every"),
        [(False, None, False), (True, 2, False), (False, 2, True), (True, None, True)],
    )
    def test_definition(self, half_space, groups, every, float64):
        regularizer = MHS(1.0, half_space=half_space, every=every, groups=groups)
        kernel = normals(4, 8, dtype="float64")
        agree(regularizer, lambda k: separation(k, half_space, every), kernel)

    def test_small_distances_keep_their_digits(self):
        kernel = normals(5, 4)
        kernel[:, 1] = kernel[:, 0] + 1e-3 * normals(5, seed=1)
        expected = separation(kernel.astype("float64"), False)
        assert value_and_gradient(MHS(1.0), kernel)[0] == pytest.approx(expected, rel=1e-3)

    def test_many_neurons_never_meet_in_one_matrix(self):
        kernel = normals(8, 3000)
        kernel[:, 2900] = -kernel[:, 17] + 1e-2 * normals(8, seed=1)
        value, gradient = value_and_gradient(MHS(1.0, half_space=True), kernel)
        expected = separation(kernel[:, [17, 2900]].astype("float64"), True)
        assert value == pytest.approx(expected, rel=1e-4)
        assert set(np.flatnonzero(np.any(gradient, axis=0))) == {17, 2900}

    @pytest.mark.parametrize("every", [False, True])
    def test_ties_and_equal_neurons_stay_finite(self, every):
        for kernel in (np.ones((3, 6)), np.zeros((3, 6)), np.eye(3, 6), normals(3, 1)):
            for half_space in SPACES:
                regularizer = MHS(1.0, half_space=half_space, every=every)
                value, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
                assert np.isfinite(value)
                assert np.all(np.isfinite(gradient))

    def test_a_single_neuron_and_zero_neurons(self):
        assert value_and_gradient(MHS(1.0), normals(3, 1))[0] == 0
        assert value_and_gradient(MHS(1.0, half_space=True), normals(3, 1))[0] == -4
        assert value_and_gradient(MHS(1.0), np.zeros((3, 4), "float32"))[0] == -2


class TestRelaxedPolarization:
    @pytest.mark.parametrize("groups", [None, 2])
    def test_definition(self, groups, float64):
        kernel = normals(4, 8, dtype="float64")
        agree(RMHP(1.0, groups=groups), lambda k: np.linalg.norm(k.sum(axis=1)), kernel)

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
    def test_every_scale(self, scale):
        kernel = scale * normals(4, 8)
        value, gradient = value_and_gradient(RMHP(1.0), kernel)
        expected = np.linalg.norm(kernel.astype("float64").sum(axis=1))
        assert value == pytest.approx(expected, rel=1e-5)
        assert np.all(np.isfinite(gradient))

    def test_there_is_no_half_space(self):
        with pytest.raises(TypeError, match="half_space"):
            RMHP(1.0, half_space=True)


class TestGramDeterminant:
    @on_spaces_and_groups
    def test_definition(self, half_space, groups, float64):
        regularizer = MGD(1.0, half_space=half_space, groups=groups)
        agree(regularizer, lambda k: gram(k, half_space), normals(5, 8, dtype="float64"))

    @pytest.mark.parametrize("half_space", SPACES)
    def test_float32_is_exact_while_eigenvalues_exceed_a_ten_thousandth(self, half_space):
        kernel = normals(24, 60)
        x = points(kernel.astype("float64"), half_space)
        assert np.linalg.eigvalsh(np.exp(-squares(x, x)))[0] > 1e-4
        expected = gram(kernel.astype("float64"), half_space)
        value, _ = value_and_gradient(MGD(1.0, half_space=half_space), kernel)
        assert value == pytest.approx(expected, rel=1e-3)

    def test_crowded_neurons_raise_the_jitter_by_factors_of_ten(self):
        kernel = normals(3, 40)
        value, gradient = value_and_gradient(MGD(1.0), kernel)
        assert np.all(np.isfinite(gradient))
        raised = np.array([gram(kernel.astype("float64"), False, 10.0**-k) for k in (5, 4, 3)])
        assert np.min(np.abs(value / raised - 1)) < 0.01

    @pytest.mark.parametrize("half_space", SPACES)
    def test_finite_always(self, half_space):
        crowd = (3, 256) if half_space else (3, 40)
        for kernel in (normals(*crowd), np.ones(crowd), np.zeros(crowd), normals(1, 40)):
            regularizer = MGD(1.0, half_space=half_space)
            value, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
            assert np.isfinite(value)
            assert np.all(np.isfinite(gradient))


POLES = {
    "mhp": (MHP, -1, -1, polarization),
    "mhp-1": (lambda *a, **k: MHP(*a, s=1, **k), -1, -1, lambda *a: polarization(*a, s=1)),
    "mhc": (MHC, 1, 1, covering),
}


@pytest.mark.parametrize("name", POLES)
class TestPoles:
    @on_spaces_and_groups
    def test_definition(self, name, half_space, groups, float64):
        make, loss, _, definition = POLES[name]
        pole = normals(4, seed=1, dtype="float64")
        softening = {} if name == "mhc" else {"softening": 0}
        regularizer = make(1.0, half_space=half_space, groups=groups, **softening)
        kernel = normals(4, 6, dtype="float64")
        agree(regularizer, lambda k: loss * definition(k, pole, half_space), kernel, {"pole": pole})

    @on_spaces_and_groups
    def test_a_learned_pole_follows_its_gradient(self, name, half_space, groups, float64):
        make, _, direction, definition = POLES[name]
        pole = normals(4, seed=1, dtype="float64")
        softening = {} if name == "mhc" else {"softening": 0}
        regularizer = make(half_space=half_space, groups=groups, learning_rate=0.3, **softening)
        kernel = normals(4, 6, dtype="float64")
        parts = np.split(kernel, groups or 1, axis=1)

        def energy(v):
            return np.mean([definition(part, v, half_space) for part in parts])

        expected = pole + direction * 0.3 * oracle.slopes(energy, pole)
        state = {"pole": keras.ops.convert_to_tensor(pole)}
        got = regularizer.advanced(neuron_matrix(kernel, groups=groups), state)["pole"]
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mhp", "mhc"])
class TestHardPoles:
    @pytest.mark.once
    @pytest.mark.parametrize("half_space", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_the_worst_pole_is_worse_than_any_of_a_fine_grid(self, name, half_space):
        make, loss, direction, definition = POLES[name]
        kernel = normals(3, 12)
        # Fibonacci's spiral: 4,000 points, some 3 degrees apart.
        i = np.arange(4000) + 0.5
        height, turn = 1 - 2 * i / 4000, np.pi * (1 + 5**0.5) * i
        ring = np.sqrt(1 - height**2)
        grid = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)
        values = [definition(kernel, pole, half_space) for pole in grid]
        worst = max(values) if direction > 0 else min(values)
        value, gradient = value_and_gradient(make(1.0, half_space=half_space, pole="worst"), kernel)
        assert direction * (loss * value - worst) > -1e-3 * abs(worst)
        assert np.any(gradient)

    @pytest.mark.parametrize("half_space", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_they_stay_finite(self, name, half_space):
        make, *_ = POLES[name]
        pole = keras.ops.convert_to_tensor(np.ones(3, "float32"))
        regularizer = make(1.0, half_space=half_space)
        kernels = [np.ones((3, 6)), np.zeros((3, 6)), 1e30 * normals(3, 6)]
        # Opposite the pole, or with its mirror image on the pole.
        kernels += [-np.ones((3, 6)), -np.ones((3, 1))]
        for kernel in kernels:
            matrix = kernel.astype("float32")
            for state in ({}, {"pole": pole})[: kernel.shape[1]]:
                value, gradient = value_and_gradient(
                    lambda k, s=state: regularizer.energy(k, s), matrix
                )
                assert np.isfinite(value)
                assert np.all(np.isfinite(gradient))
            moved = regularizer.advanced(matrix, {"pole": pole})["pole"]
            assert np.all(np.isfinite(keras.ops.convert_to_numpy(moved)))


def smallest_angles(kernel, starts, half_space):
    angles = []
    for part in np.split(kernel, starts, axis=1):
        cosine = points(part, False).T @ points(part, False)
        cosine = np.abs(cosine) if half_space else cosine
        np.fill_diagonal(cosine, -1)
        angles.append(np.degrees(np.arccos(cosine.max())))
    return angles


ICOSAHEDRON = np.degrees(np.arctan(2))  # 63.43


# Gradients in both spaces are those of the definition, tested above.
@pytest.mark.once
@pytest.mark.parametrize(
    ("cls", "options", "half_space"),
    [
        (MHS, {}, True),
        pytest.param(MHS, {"every": True}, False, marks=pytest.mark.slow),
        pytest.param(MGD, {}, False, marks=pytest.mark.slow),
        pytest.param(MHP, {"pole": "worst"}, True, marks=pytest.mark.slow),
        (MHC, {"pole": "worst"}, False),
    ],
    ids=["mhs", "mhs-every", "mgd", "mhp", "mhc"],
)
def test_five_random_starts_find_the_icosahedron(cls, options, half_space):
    """Five sets of neurons, each a group of its own, under Adam on the regularizer alone."""
    n = 6 if half_space else 12
    starts, steps = 5, 250
    regularizer = cls(1.0, half_space=half_space, groups=starts, **options)
    kernel = normals(3, starts * n)
    mean, square = np.zeros_like(kernel), np.zeros_like(kernel)
    for step in range(steps):
        _, gradient = value_and_gradient(regularizer, kernel)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        rate = 0.05 * (1 + np.cos(np.pi * step / steps))
        unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.99 ** (step + 1))
        kernel = kernel - (rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-12)).astype("float32")
    assert max(smallest_angles(kernel, starts, half_space)) > 0.95 * ICOSAHEDRON


@pytest.mark.parametrize("cls", [MHP, pytest.param(MHC, marks=pytest.mark.slow)])
def test_real_training_moves_the_pole_and_saves_it(cls, tmp_path):
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


class TestArguments:
    @pytest.mark.parametrize("cls", [MHP, MHC])
    def test_a_bare_regularizer_cannot_learn_and_shows_the_wrapped_form(self, cls):
        with pytest.raises(ValueError, match=rf"Dense\(64\), keras_mhe\.{cls.__name__}\(\)\)"):
            cls()(normals(3, 4))

    @pytest.mark.parametrize(
        ("cls", "options", "error", "words"),
        [
            (MHS, {"factor": -1}, ValueError, "factor=-1"),
            (MHS, {"every": 1}, TypeError, "every=1"),
            (MGD, {"half_space": "yes"}, TypeError, "half_space='yes'"),
            (MHP, {"pole": "best"}, ValueError, "pole='best'"),
            (MHP, {"learning_rate": -1}, ValueError, "learning_rate=-1"),
            (MHP, {"s": -1}, ValueError, "s=-1"),
            (MHC, {"gamma": 0}, ValueError, "gamma=0"),
            (MHC, {"gamma": "10"}, TypeError, "gamma='10'"),
            (RMHP, {"groups": 0}, ValueError, "groups=0"),
        ],
    )
    def test_bad_arguments_are_named_at_construction(self, cls, options, error, words):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(words)


@pytest.mark.slow
@pytest.mark.once
def test_the_page_on_regularizers_draws_its_picture():
    page = (Path(__file__).parents[1] / "docs" / "regularizers.md").read_text()
    names = {}
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, names)
    assert len(names["ax"].lines) == 6
