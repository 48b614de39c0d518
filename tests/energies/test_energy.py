"""The energy and its gradient: definition, invariance, bounds and numerical stability."""

import math

import keras
import numpy as np
import oracle
import pytest
from helpers import (
    DISTANCES,
    SPACES,
    energy_and_gradient,
    energy_value,
    normals,
    on_some_potentials,
    second_order_gradient,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_mhe import hyperspherical_energy
from keras_mhe.energies._potential import PotentialSpec

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
    """Values and gradients match the definition, although the 2N points are never built."""

    @on_some_potentials
    def test_value_and_gradient_match_the_definition(self, s, distance, half_space, float64):
        # Two pairs are softened. No cosine is in the range where the angular slope is constant.
        kernel = normals(3, 5, seed=1, dtype="float64")
        options = {"s": s, "distance": distance, "half_space": half_space}
        value, gradient = energy_and_gradient(kernel, softening=0.7, **options)
        expected = oracle.energy(kernel, epsilon=0.7**2, **options)
        assert value == pytest.approx(expected, rel=1e-8)
        expected = oracle.gradient(kernel, epsilon=0.7**2, **options)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("shape", [(1, 4), (2, 2), (2, 30), (3, 40), (30, 8)])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_epsilon_auto_follows_shape_and_space(self, shape, half_space):
        d, n = shape
        potential = PotentialSpec(half_space=half_space).of_neurons(normals(*shape))
        expected = oracle.auto_epsilon(2 * n if half_space else n, d)
        assert potential.epsilon == pytest.approx(expected, rel=1e-9)

    def test_half_space_energy_uses_epsilon_auto(self, float64):
        kernel = normals(2, 30, dtype="float64")
        expected = oracle.energy(kernel, half_space=True, epsilon=oracle.auto_epsilon(60, 2))
        assert energy_value(kernel, half_space=True) == pytest.approx(expected, rel=1e-7)

    def test_epsilon_auto_depends_on_the_neurons_of_one_group(self, float64):
        kernel = normals(2, 40, dtype="float64")
        epsilon = oracle.auto_epsilon(20, 2)
        halves = [oracle.energy(part, epsilon=epsilon) for part in np.split(kernel, 2, axis=1)]
        assert energy_value(kernel, groups=2) == pytest.approx(np.mean(halves), rel=1e-8)

    def test_second_derivatives_match_central_differences(self, float64):
        kernel = normals(3, 4, dtype="float64")

        def squared_norm(k):
            return np.sum(energy_and_gradient(k, half_space=True)[1] ** 2)

        _, got = second_order_gradient(kernel, half_space=True)
        expected = np.zeros_like(kernel)
        for index in np.ndindex(kernel.shape):
            shift = np.zeros_like(kernel)
            shift[index] = 1e-5
            expected[index] = (squared_norm(kernel + shift) - squared_norm(kernel - shift)) / 2e-5
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        ("s", "distance", "half_space"),
        [(0, "angular", True), (2, "angular", False)],
    )
    def test_float32_agrees_with_float64_to_five_digits(self, s, distance, half_space, float64):
        kernel = normals(64, 40)
        options = {"distance": distance, "half_space": half_space}
        value, gradient = energy_and_gradient(kernel, s, **options)
        float64_value, float64_gradient = energy_and_gradient(
            kernel.astype("float64"), s, **options
        )
        assert value == pytest.approx(float64_value, rel=1e-6)
        np.testing.assert_allclose(
            gradient, float64_gradient, atol=1e-5 * np.abs(float64_gradient).max()
        )

    def test_sums_of_many_pairs_keep_six_digits(self, float64):
        kernel = normals(3, 2000)
        assert energy_value(kernel) == pytest.approx(
            energy_value(kernel.astype("float64")), rel=2e-6
        )

    def test_neurons_of_different_groups_do_not_interact(self):
        kernel = normals(2, 2, 2, 12)
        values, gradients = zip(
            *[energy_and_gradient(part, half_space=True) for part in np.split(kernel, 3, axis=-1)],
            strict=True,
        )
        value, gradient = energy_and_gradient(kernel, half_space=True, groups=3)
        assert value == pytest.approx(np.mean(values), rel=1e-6)
        np.testing.assert_allclose(gradient, np.concatenate(gradients, -1) / 3, atol=1e-7)

    @pytest.mark.parametrize("axis", [1, (2, 0)])
    def test_gradients_have_the_axis_order_of_the_kernel(self, axis):
        kernel = normals(3, 4, 2, 5)
        axes = (axis,) if isinstance(axis, int) else axis
        coordinate_axes = [i for i in range(4) if i not in axes]
        matrix = kernel.transpose(*coordinate_axes, *axes)
        shape = matrix.shape
        matrix = matrix.reshape(-1, math.prod(kernel.shape[i] for i in axes))
        value, gradient = energy_and_gradient(kernel, neuron_axis=axis)
        expected_value, expected = energy_and_gradient(matrix)
        assert value == pytest.approx(expected_value, rel=1e-6)
        inverse = np.argsort([*coordinate_axes, *axes])
        np.testing.assert_allclose(gradient, expected.reshape(shape).transpose(inverse), atol=1e-7)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, 0),
            ({"half_space": True}, 1 / 4),
            ({"s": 0, "half_space": True}, -math.log(2)),
            ({"s": 1, "half_space": True, "distance": "angular"}, 1 / math.pi),
        ],
    )
    def test_single_neuron_has_constant_energy_and_zero_gradient(self, options, expected):
        value, gradient = energy_and_gradient(normals(8, 1), **options)
        assert value == pytest.approx(expected)
        assert not gradient.any()

    @pytest.mark.parametrize("half_space", SPACES)
    def test_zero_neuron_is_orthogonal_to_all_others_and_gets_no_gradient(self, half_space):
        kernel = normals(8, 4)
        kernel[:, 1] = 0
        others = kernel[:, [0, 2, 3]]
        other_energy = oracle.energy(others, half_space=half_space, epsilon=0.1)
        value, gradient = energy_and_gradient(kernel, half_space=half_space)
        right_angle = oracle.potential(0, 2, "euclidean")
        if half_space:  # 56 ordered pairs: 30 of the others, 2 of the zero neuron, 24 mixed
            assert value == pytest.approx(
                (30 * other_energy + 2 / 4 + 24 * right_angle) / 56, rel=1e-6
            )
        else:
            assert value == pytest.approx((6 * other_energy + 6 * right_angle) / 12, rel=1e-6)
        assert not gradient[:, 1].any()
        assert np.all(np.any(gradient[:, [0, 2, 3]], axis=0))


class TestInvariants:
    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_energy_is_invariant_to_rotation(self, kernel, potential, seed):
        rotation, _ = np.linalg.qr(normals(len(kernel), len(kernel), seed=seed))
        rotated = energy_value(rotation @ kernel, **potential)
        assert rotated == pytest.approx(energy_value(kernel, **potential), rel=1e-4, abs=1e-5)

    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_energy_is_invariant_to_permutation(self, kernel, potential, seed):
        order = np.random.default_rng(seed).permutation(kernel.shape[1])
        permuted = energy_value(kernel[:, order], **potential)
        assert permuted == pytest.approx(energy_value(kernel, **potential), rel=1e-5, abs=1e-6)

    @given(kernels, potentials, st.integers(0, 2**32 - 1))
    def test_energy_is_invariant_to_the_norm_of_each_neuron(self, kernel, potential, seed):
        scales = np.exp(normals(kernel.shape[1], seed=seed))
        scaled = energy_value(kernel * scales, **potential)
        assert scaled == pytest.approx(energy_value(kernel, **potential), rel=1e-4, abs=1e-5)

    @given(kernels, potentials.filter(lambda p: p["half_space"]), st.integers(0, 2**32 - 1))
    def test_half_space_energy_is_invariant_to_signs(self, kernel, potential, seed):
        signs = np.sign(normals(kernel.shape[1], seed=seed))
        flipped = energy_value(kernel * signs, **potential)
        assert flipped == pytest.approx(energy_value(kernel, **potential), rel=1e-5, abs=1e-6)

    @given(kernels, potentials)
    def test_gradient_is_orthogonal_to_each_neuron(self, kernel, potential):
        _, gradient = energy_and_gradient(kernel, **potential)
        radial = np.abs(np.sum(kernel * gradient, axis=0))
        # The radial part that was removed may be large; its rounding error remains.
        scale = np.linalg.norm(kernel, axis=0) * np.linalg.norm(gradient, axis=0)
        assert np.all(radial <= 1e-4 * scale + 1e-4)

    @given(kernels, st.sampled_from([(0, True), (1, False), (2, True)]))
    def test_energy_is_never_below_the_lower_bound(self, kernel, potential):
        (s, half_space), (d, n) = potential, kernel.shape
        got = energy_value(kernel, s, half_space=half_space, softening=0)
        f = lambda cosine: oracle.potential(cosine, s, "euclidean")  # noqa: E731
        if half_space:  # Welch: the mean squared cosine is at least this
            x = math.sqrt(max(0, (n - d) / (d * (n - 1))))
            bound = ((n - 1) * (f(x) + f(-x)) + f(-1)) / (2 * n - 1)
        else:  # Jensen: the mean cosine is at least that of the simplex
            bound = f(-1 / (n - 1))
        assert got >= bound - 1e-5 * abs(bound)

    @pytest.mark.parametrize("s", [0, 2])
    def test_simplex_reaches_the_lower_bound(self, s):
        simplex = np.concatenate([np.eye(4) - 1 / 4, np.zeros((4, 4))])
        bound = oracle.potential(-1 / 3, s, "euclidean")
        assert energy_value(simplex.astype("float32"), s) == pytest.approx(bound, rel=1e-5)

    @pytest.mark.parametrize("s", [0, 2])
    def test_orthonormal_neurons_reach_the_half_space_lower_bound(self, s):
        f = lambda cosine: oracle.potential(cosine, s, "euclidean")  # noqa: E731
        bound = (3 * 2 * f(0) + f(-1)) / 7
        value, gradient = energy_and_gradient(np.eye(8, 4, dtype="float32"), s, half_space=True)
        assert value == pytest.approx(bound)
        np.testing.assert_allclose(gradient, 0, atol=1e-7)


degenerate_kernels = {
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


class TestNumericalStability:
    """Values and gradients are finite in float32 for every kernel."""

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize(
        ("name", "s"),
        # Each further shape compiles four more programs, so other shapes are tested with s=2 only.
        [(name, s) for name, k in degenerate_kernels.items() for s in (0, 2)[k.shape != (8, 4) :]],
    )
    def test_value_and_gradient_are_finite(self, name, s, distance, half_space):
        kernel = degenerate_kernels[name].astype("float32")
        value, gradient = energy_and_gradient(kernel, s, distance=distance, half_space=half_space)
        assert math.isfinite(value)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_half_precision_kernels_are_computed_in_float32(self, dtype, half_space):
        half_precision = keras.ops.cast(normals(8, 4), dtype)
        float32 = keras.ops.cast(half_precision, "float32")
        value, gradient = energy_and_gradient(half_precision, half_space=half_space)
        float32_value, float32_gradient = energy_and_gradient(float32, half_space=half_space)
        assert value == pytest.approx(float32_value, rel=1e-6)
        np.testing.assert_allclose(
            gradient.astype("float32"), float32_gradient, rtol=1e-2, atol=1e-5
        )

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_scaling_a_kernel_keeps_the_energy_and_divides_the_gradient(self, scale):
        kernel = normals(8, 4)
        value, gradient = energy_and_gradient(kernel)
        scaled_value, scaled_gradient = energy_and_gradient((kernel * scale).astype("float32"))
        assert scaled_value == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(scaled_gradient * scale, gradient, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("half_space", SPACES)
    @pytest.mark.parametrize("distance", DISTANCES)
    def test_equal_neurons_without_softening_have_a_large_finite_energy(self, distance, half_space):
        value, gradient = energy_and_gradient(
            np.ones((8, 4), "float32"), distance=distance, half_space=half_space, softening=0
        )
        assert 1e5 < value < math.inf
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("entry", [math.nan, math.inf])
    @pytest.mark.parametrize("index", [(1, 1), (slice(None), 1), ...])
    @pytest.mark.parametrize("half_space", SPACES)
    def test_nan_or_infinity_in_a_kernel_gives_nan(self, entry, index, half_space):
        kernel = normals(8, 4)
        kernel[index] = entry
        assert math.isnan(energy_value(kernel, half_space=half_space))

    def test_zero_neurons_have_finite_second_derivatives(self):
        kernel = normals(8, 4)
        kernel[:, 1] = 0
        assert np.all(np.isfinite(second_order_gradient(kernel)[1]))

    def test_norm_floor_limits_the_gradient_of_short_neurons(self, float64):
        kernel = normals(3, 5, dtype="float64")
        _, full = energy_and_gradient(kernel)
        shrunk = kernel * [1, 1, 1, 1, 1e-6]
        _, gradient = energy_and_gradient(shrunk)
        rms = np.sqrt(np.mean(np.sum(shrunk**2, axis=0)))
        expected = full[:, 4] * np.linalg.norm(kernel[:, 4]) / (0.01 * rms)
        np.testing.assert_allclose(gradient[:, 4], expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[:, :4], full[:, :4], rtol=1e-6)


class TestThomson:
    """The minimum energy for s=1 is that of the known solutions of the Thomson problem."""

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("charges", "minimum"),
        [
            # Two and three charges lie on a line and a circle. Four form a simplex, tested above.
            pytest.param(5, 6.474691495, marks=pytest.mark.slow),
            (12, 49.165253058),
        ],
    )
    def test_minimum_energy_matches_the_known_value(self, charges, minimum):
        kernel = keras.Variable(normals(3, charges, seed=1))
        steps = 300
        rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
        optimizer = keras.optimizers.Adam(rate)
        for _ in range(steps):
            _, gradient = energy_and_gradient(kernel.value, 1)
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
        pairs = charges * (charges - 1) / 2
        assert energy_value(kernel, 1) * pairs == pytest.approx(minimum, rel=1e-5)


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"s": -1}, ValueError, "s=-1"),
            ({"s": math.nan}, ValueError, "s=nan"),
            ({"s": math.inf}, ValueError, "s=inf"),
            ({"s": 10**400}, ValueError, f"s={10**400}"),
            ({"s": 1j}, TypeError, "s=1j"),
            ({"s": True}, TypeError, "s=True"),
            ({"s": "2"}, TypeError, "s='2'"),
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
    def test_invalid_arguments_are_named_in_the_error(self, options, error, message):
        with pytest.raises(error) as raised:
            hyperspherical_energy(normals(3, 4), **options)
        assert str(raised.value).endswith(message)

    def test_power_is_two_by_default(self):
        kernel = normals(3, 4)
        assert energy_value(kernel) == energy_value(kernel, None) == energy_value(kernel, 2.0)

    def test_numpy_scalars_are_accepted(self):
        kernel = normals(3, 4)
        assert energy_value(kernel, np.float32(1), groups=np.int64(2)) == energy_value(
            kernel, 1.0, groups=2
        )

    @given(kernels)
    def test_lists_and_variables_are_accepted_as_kernels(self, kernel):
        assume(np.all(np.isfinite(kernel)))
        expected = energy_value(kernel)
        assert energy_value(kernel.tolist()) == pytest.approx(expected, rel=1e-6)
        assert energy_value(keras.Variable(kernel)) == pytest.approx(expected, rel=1e-6)
