"""The energy and its gradient: the definitions, the invariants, and every hard kernel."""

import math

import keras
import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from probes import (
    DISTANCES,
    SPACES,
    normals,
    number,
    on_some_potentials,
    second_slopes,
    slopes,
)

from keras_mhe import hyperspherical_energy
from keras_mhe.potentials import potential_of

kernels = st.builds(normals, st.just(3), st.just(5), seed=st.integers(0, 2**32 - 1))
potentials = st.sampled_from(
    [
        {"s": 1, "distance": "euclidean", "half_space": False},
        {"s": 2, "distance": "euclidean", "half_space": True},
        {"s": 2, "distance": "angular", "half_space": False},
        {"s": 0, "distance": "angular", "half_space": True},
    ]
)


class TestDefinition:
    """Values and gradients are those of the 2N points, though these are never built."""

    @on_some_potentials
    def test_values_and_gradients(self, s, distance, half_space, float64):
        # Two pairs are softened, none so near that the slope of its mirrored angle is held.
        kernel = normals(3, 5, seed=1, dtype="float64")
        options = {"s": s, "distance": distance, "half_space": half_space}
        value, gradient = slopes(kernel, softening=0.7, **options)
        expected = oracle.energy(kernel, floor=0.7**2, **options)
        assert value == pytest.approx(expected, rel=1e-8)
        expected = oracle.gradient(kernel, floor=0.7**2, **options)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("shape", [(1, 4), (2, 2), (2, 30), (3, 40), (30, 8)])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_softening_follows_shape_and_space(self, shape, half_space):
        d, n = shape
        potential = potential_of(normals(*shape), 2, "euclidean", half_space, "auto")
        expected = oracle.auto_floor(2 * n if half_space else n, d)
        assert potential.floor == pytest.approx(expected, rel=1e-9)

    def test_softening_is_that_of_the_definition(self, float64):
        kernel = normals(2, 30, dtype="float64")
        expected = oracle.energy(kernel, half_space=True, floor=oracle.auto_floor(60, 2))
        assert number(kernel, half_space=True) == pytest.approx(expected, rel=1e-7)

    def test_softening_in_groups_counts_those_who_compete(self, float64):
        kernel = normals(2, 40, dtype="float64")
        floor = oracle.auto_floor(20, 2)
        halves = [oracle.energy(part, floor=floor) for part in np.split(kernel, 2, axis=1)]
        assert number(kernel, groups=2) == pytest.approx(np.mean(halves), rel=1e-8)

    def test_gradients_differentiate_once_more(self, float64):
        kernel = normals(3, 4, dtype="float64")

        def squared(k):
            return np.sum(slopes(k, half_space=True)[1] ** 2)

        _, got = second_slopes(kernel, half_space=True)
        expected = np.zeros_like(kernel)
        for index in np.ndindex(kernel.shape):
            shift = np.zeros_like(kernel)
            shift[index] = 1e-5
            expected[index] = (squared(kernel + shift) - squared(kernel - shift)) / 2e-5
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        ("s", "distance", "half_space"),
        [(0, "angular", True), (2, "angular", False)],
    )
    def test_float32_keeps_five_digits(self, s, distance, half_space, float64):
        kernel = normals(64, 40)
        options = {"distance": distance, "half_space": half_space}
        value, gradient = slopes(kernel, s, **options)
        wide_value, wide_gradient = slopes(kernel.astype("float64"), s, **options)
        assert value == pytest.approx(wide_value, rel=1e-6)
        np.testing.assert_allclose(gradient, wide_gradient, atol=1e-5 * np.abs(wide_gradient).max())

    def test_sums_of_many_pairs_keep_six_digits(self, float64):
        kernel = normals(3, 2000)
        assert number(kernel) == pytest.approx(number(kernel.astype("float64")), rel=2e-6)

    def test_groups_compete_only_among_themselves(self):
        kernel = normals(2, 2, 2, 12)
        values, gradients = zip(
            *[slopes(part, half_space=True) for part in np.split(kernel, 3, axis=-1)], strict=True
        )
        value, gradient = slopes(kernel, half_space=True, groups=3)
        assert value == pytest.approx(np.mean(values), rel=1e-6)
        np.testing.assert_allclose(gradient, np.concatenate(gradients, -1) / 3, atol=1e-7)

    @pytest.mark.parametrize("axis", [1, (2, 0)])
    def test_neuron_axes_move_gradients_back_to_their_entries(self, axis):
        kernel = normals(3, 4, 2, 5)
        axes = (axis,) if isinstance(axis, int) else axis
        others = [i for i in range(4) if i not in axes]
        matrix = kernel.transpose(*others, *axes)
        shape = matrix.shape
        matrix = matrix.reshape(-1, math.prod(kernel.shape[i] for i in axes))
        value, gradient = slopes(kernel, neuron_axis=axis)
        expected_value, expected = slopes(matrix)
        assert value == pytest.approx(expected_value, rel=1e-6)
        back = np.argsort([*others, *axes])
        np.testing.assert_allclose(gradient, expected.reshape(shape).transpose(back), atol=1e-7)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, 0),
            ({"half_space": True}, 1 / 4),
            ({"s": 0, "half_space": True}, -math.log(2)),
            ({"s": 1, "half_space": True, "distance": "angular"}, 1 / math.pi),
        ],
    )
    def test_a_single_neuron(self, options, expected):
        value, gradient = slopes(normals(8, 1), **options)
        assert value == pytest.approx(expected)
        assert not gradient.any()

    @pytest.mark.parametrize("half_space", SPACES)
    def test_a_zero_neuron_is_at_right_angles_to_all_and_stays(self, half_space):
        kernel = normals(8, 4)
        kernel[:, 1] = 0
        others = kernel[:, [0, 2, 3]]
        rest = oracle.energy(others, half_space=half_space, floor=0.1)
        value, gradient = slopes(kernel, half_space=half_space)
        right_angle = oracle.potential(0, 2, "euclidean")
        if half_space:  # 56 ordered pairs: 30 among the rest, 2 of the zero, 24 between
            assert value == pytest.approx((30 * rest + 2 / 4 + 24 * right_angle) / 56, rel=1e-6)
        else:
            assert value == pytest.approx((6 * rest + 6 * right_angle) / 12, rel=1e-6)
        assert not gradient[:, 1].any()
        assert np.all(np.any(gradient[:, [0, 2, 3]], axis=0))


class TestInvariants:
    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_rotating_all_neurons_changes_nothing(self, kernel, potential, seed):
        turn, _ = np.linalg.qr(normals(len(kernel), len(kernel), seed=seed))
        turned = number(turn @ kernel, **potential)
        assert turned == pytest.approx(number(kernel, **potential), rel=1e-4, abs=1e-5)

    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_permuting_neurons_changes_nothing(self, kernel, potential, seed):
        order = np.random.default_rng(seed).permutation(kernel.shape[1])
        permuted = number(kernel[:, order], **potential)
        assert permuted == pytest.approx(number(kernel, **potential), rel=1e-5, abs=1e-6)

    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_rescaling_each_neuron_changes_nothing(self, kernel, potential, seed):
        scales = np.exp(normals(kernel.shape[1], seed=seed))
        scaled = number(kernel * scales, **potential)
        assert scaled == pytest.approx(number(kernel, **potential), rel=1e-4, abs=1e-5)

    @given(kernels, potentials.filter(lambda p: p["half_space"]), st.integers(0, 2**32 - 1))
    def test_half_space_ignores_signs(self, kernel, potential, seed):
        signs = np.sign(normals(kernel.shape[1], seed=seed))
        flipped = number(kernel * signs, **potential)
        assert flipped == pytest.approx(number(kernel, **potential), rel=1e-5, abs=1e-6)

    @given(kernels, potentials)
    def test_the_gradient_is_orthogonal_to_each_neuron(self, kernel, potential):
        _, gradient = slopes(kernel, **potential)
        along = np.abs(np.sum(kernel * gradient, axis=0))
        # Rounding of a pull along the neuron, which may be large, remains of it.
        largest = np.linalg.norm(kernel, axis=0) * np.linalg.norm(gradient, axis=0)
        assert np.all(along <= 1e-4 * largest + 1e-4)

    @given(kernels, st.sampled_from([(0, True), (1, False), (2, True)]))
    def test_no_energy_is_below_the_lower_bound(self, kernel, potential):
        (s, half_space), (d, n) = potential, kernel.shape
        got = number(kernel, s, half_space=half_space, softening=0)
        f = lambda cosine: oracle.potential(cosine, s, "euclidean")  # noqa: E731
        if half_space:  # Welch: the mean squared cosine is at least this
            x = math.sqrt(max(0, (n - d) / (d * (n - 1))))
            bound = ((n - 1) * (f(x) + f(-x)) + f(-1)) / (2 * n - 1)
        else:  # Jensen: the mean cosine is at least that of the simplex
            bound = f(-1 / (n - 1))
        assert got >= bound - 1e-5 * abs(bound)

    @pytest.mark.parametrize("s", [0, 2])
    def test_the_simplex_reaches_the_lower_bound(self, s):
        simplex = np.concatenate([np.eye(4) - 1 / 4, np.zeros((4, 4))])
        bound = oracle.potential(-1 / 3, s, "euclidean")
        assert number(simplex.astype("float32"), s) == pytest.approx(bound, rel=1e-5)

    @pytest.mark.parametrize("s", [0, 2])
    def test_orthonormal_neurons_reach_the_half_space_bound(self, s):
        f = lambda cosine: oracle.potential(cosine, s, "euclidean")  # noqa: E731
        bound = (3 * 2 * f(0) + f(-1)) / 7
        value, gradient = slopes(np.eye(8, 4, dtype="float32"), s, half_space=True)
        assert value == pytest.approx(bound)
        np.testing.assert_allclose(gradient, 0, atol=1e-7)


hard_kernels = {
    "zero neurons": np.zeros((8, 4)),
    "one zero neuron": normals(8, 4) * [0, 1, 1, 1],
    "equal neurons": np.ones((8, 4)),
    "nearly equal neurons": 1 + 1e-7 * normals(8, 4),
    "opposite neurons": np.outer(normals(8), [1, -1, 1, -1]),
    "one coordinate": normals(1, 6),
    "scale 1e-30": 1e-30 * normals(8, 4),
    "scale 1e30": 1e30 * normals(8, 4),
    "scales 1e-30 to 1e30": normals(8, 4) * [1e-30, 1e-10, 1, 1e30],
    "largest float32": 3e38 * np.sign(normals(8, 4)),
    "64 neurons in 2 dimensions": normals(2, 64),
    "orthonormal": np.eye(8, 4),
}


class TestHardKernels:
    """Finite values and gradients in float32, whatever the kernel."""

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize(
        ("name", "s"),
        # Another shape is four more programs to compile: there the steeper potential will do.
        [(name, s) for name, k in hard_kernels.items() for s in (0, 2)[k.shape != (8, 4) :]],
    )
    def test_finite(self, name, s, distance, half_space):
        kernel = hard_kernels[name].astype("float32")
        value, gradient = slopes(kernel, s, distance=distance, half_space=half_space)
        assert math.isfinite(value)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_narrow_kernels_lose_only_their_own_rounding(self, dtype, half_space):
        narrow = keras.ops.cast(normals(8, 4), dtype)
        wide = keras.ops.cast(narrow, "float32")
        value, gradient = slopes(narrow, half_space=half_space)
        wide_value, wide_gradient = slopes(wide, half_space=half_space)
        assert value == pytest.approx(wide_value, rel=1e-6)
        np.testing.assert_allclose(gradient.astype("float32"), wide_gradient, rtol=1e-2, atol=1e-5)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_energy_and_direction_of_the_gradient_do_not_depend_on_scale(self, scale):
        kernel = normals(8, 4)
        value, gradient = slopes(kernel)
        scaled_value, scaled_gradient = slopes((kernel * scale).astype("float32"))
        assert scaled_value == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(scaled_gradient * scale, gradient, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("distance", DISTANCES)
    def test_equal_neurons_without_softening_are_as_near_as_rounding_tells(
        self, distance, half_space
    ):
        value, gradient = slopes(
            np.ones((8, 4), "float32"), distance=distance, half_space=half_space, softening=0
        )
        assert 1e5 < value < math.inf
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize("where", [(1, 1), (slice(None), 1), ...])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_a_kernel_that_is_not_finite_shows(self, bad, where, half_space):
        kernel = normals(8, 4)
        kernel[where] = bad
        assert math.isnan(number(kernel, half_space=half_space))

    def test_zero_neurons_differentiate_once_more(self):
        kernel = normals(8, 4)
        kernel[:, 1] = 0
        assert np.all(np.isfinite(second_slopes(kernel)[1]))

    def test_short_neurons_get_the_gradient_of_the_norm_floor(self, float64):
        kernel = normals(3, 5, dtype="float64")
        _, full = slopes(kernel)
        shrunk = kernel * [1, 1, 1, 1, 1e-6]
        _, gradient = slopes(shrunk)
        rms = np.sqrt(np.mean(np.sum(shrunk**2, axis=0)))
        expected = full[:, 4] * np.linalg.norm(kernel[:, 4]) / (0.01 * rms)
        np.testing.assert_allclose(gradient[:, 4], expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[:, :4], full[:, :4], rtol=1e-6)


class TestThomson:
    """Charges that minimise the energy come to rest where physics knows they do."""

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("charges", "known"),
        [
            # Two and three lie on a line and a circle; four are a simplex, tested above.
            pytest.param(5, 6.474691495, marks=pytest.mark.slow),
            (12, 49.165253058),
        ],
    )
    def test_minimum(self, charges, known):
        kernel = keras.Variable(normals(3, charges, seed=1))
        steps = 300
        rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
        optimizer = keras.optimizers.Adam(rate)
        for _ in range(steps):
            _, gradient = slopes(kernel.value, 1)
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
        pairs = charges * (charges - 1) / 2
        assert number(kernel, 1) * pairs == pytest.approx(known, rel=1e-3)


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"s": -1}, ValueError, "s=-1"),
            ({"s": math.nan}, ValueError, "s=nan"),
            ({"s": math.inf}, ValueError, "s=inf"),
            ({"s": 10**400}, ValueError, f"s={10**400}"),
            ({"s": 1j}, TypeError, "s=1j"),
            ({"s": True}, TypeError, "s=True"),
            ({"s": "2"}, TypeError, "s='2'"),
            ({"s": None}, TypeError, "s=None"),
            ({"distance": "cosine"}, ValueError, "distance='cosine'"),
            ({"half_space": "yes"}, TypeError, "half_space='yes'"),
            ({"softening": "none"}, ValueError, "softening='none'"),
            ({"softening": -0.1}, ValueError, "softening=-0.1"),
            ({"softening": 1.5}, ValueError, "softening=1.5"),
            ({"softening": None}, TypeError, "softening=None"),
            ({"softening": np.ones(2)}, TypeError, "softening=array([1., 1.])"),
            ({"distance": np.ones(2)}, ValueError, "distance=array([1., 1.])"),
        ],
    )
    def test_bad_arguments_are_named(self, options, error, words):
        with pytest.raises(error) as raised:
            hyperspherical_energy(normals(3, 4), **options)
        assert str(raised.value).endswith(words)

    def test_numbers_of_numpy_are_numbers(self):
        kernel = normals(3, 4)
        assert number(kernel, np.float32(1), groups=np.int64(2)) == number(kernel, 1.0, groups=2)

    @given(kernels)
    def test_lists_and_variables_are_kernels(self, kernel):
        assume(np.all(np.isfinite(kernel)))
        expected = number(kernel)
        assert number(kernel.tolist()) == pytest.approx(expected, rel=1e-6)
        assert number(keras.Variable(kernel)) == pytest.approx(expected, rel=1e-6)
