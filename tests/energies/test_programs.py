"""Compiled programs: what one program serves, and derivatives in forward mode on JAX."""

from unittest import mock

import keras
import numpy as np
import oracle
import pytest
from helpers import energy_value, normals

import keras_mhe
from keras_mhe import MHC, MHE, MHP, AdversarialProjection, AngleProjection, CoMHE, RandomProjection
from keras_mhe.energies import _programs
from keras_mhe.energies._programs import fresh_programs, program_for

KERNEL = normals(8, 7)


def learned(projection):
    """Returns a function: the energy after an update of a learned projection."""
    regularizer = CoMHE(projection=projection)
    state = {"projection": keras.ops.convert_to_tensor(normals(3, 8))}
    kernel = keras.ops.convert_to_tensor(KERNEL)
    return regularizer.energy(kernel, regularizer.update_state(kernel, state))


# For each number: a function of it, and two of its values.
SWEEPS = {
    "s": (lambda x: MHE(s=x)(KERNEL), (2.5, 3.5)),
    "softening": (lambda x: MHE(softening=x)(KERNEL), (0.4, 1.2)),
    "angular softening": (lambda x: MHE(distance="angular", softening=x)(KERNEL), (0.4, 1.2)),
    "factor": (lambda x: MHE(x)(KERNEL), (1.0, 3.0)),
    "position": (lambda x: MHE(1.0, 2.5, scale="position")(x), (KERNEL, 2 * KERNEL)),
    "seed": (lambda x: CoMHE(projection=RandomProjection(3, 2, seed=x))(KERNEL), (1, 2)),
    "sampled": (lambda x: MHE(sample=3, softening=x)(KERNEL), (0.4, 1.2)),
    "gamma": (lambda x: MHC(gamma=x, pole="worst")(KERNEL), (5.0, 10.0)),
    "pole": (lambda x: MHP(s=x, pole="worst")(KERNEL), (2.5, 3.5)),
    "rate": (lambda x: learned(AngleProjection(3, learning_rate=x)), (0.1, 0.5)),
    "adversary": (lambda x: learned(AdversarialProjection(3, learning_rate=x)), (0.1, 0.5)),
}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles no programs")
class TestSharing:
    """TensorFlow never frees a program, so a sweep of numbers must not compile one for each."""

    @pytest.mark.parametrize("name", SWEEPS)
    def test_one_program_serves_all_numbers(self, name):
        function, (first, second) = SWEEPS[name]
        with (
            fresh_programs(),
            mock.patch.object(_programs, "compiled", wraps=_programs.compiled) as compiled,
        ):
            results = [float(function(first))]
            count = compiled.call_count
            results.append(float(function(second)))
            assert compiled.call_count == count > 0
        if name != "position":  # scaled neurons have the same energy
            assert results[0] != results[1]

    def test_kernels_with_equal_numbers_of_neurons_share_a_program(self):
        """On TensorFlow with a CPU. JAX compiles the energy with the training step."""
        if not keras_mhe._backend.compiles_apart():
            pytest.skip("this backend compiles the energy with the training step")
        with (
            fresh_programs(),
            mock.patch.object(_programs, "compiled", wraps=_programs.compiled) as compiled,
        ):
            for dimension in range(2, 6):
                kernel = normals(dimension, 7)
                expected = oracle.energy(kernel, epsilon=oracle.auto_epsilon(7, dimension))
                assert float(MHE(1.0)(kernel)) == pytest.approx(expected, rel=1e-5)
            # The function with its two products, and the part between them.
            assert compiled.call_count == 2

    def test_numbers_of_an_earlier_call_have_no_effect(self):
        for softening in (0.4, 1.2, 0.4):
            expected = oracle.energy(KERNEL, s=2.5, epsilon=softening**2)
            assert energy_value(KERNEL, 2.5, softening=softening) == pytest.approx(expected, 1e-5)


def _scaled(x, options):
    (factor, name), count = options
    return factor * x * (2 if name == "twice" else 1) + count


def test_floats_in_options_are_arguments_and_other_values_are_fixed():
    x = keras.ops.convert_to_tensor(np.ones(3, "float32"))
    for factor, name, expected in ((0.5, "once", 1.5), (0.5, "twice", 2.0), (3.0, "twice", 7.0)):
        program = program_for(_scaled, x, options=(((factor, name), 1),))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(program(x)), expected)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="transformations of JAX")
class TestForwardMode:
    """`jax.jvp` and what JAX builds from it agree with reverse mode."""

    @pytest.mark.parametrize(
        "function",
        [
            keras_mhe.hyperspherical_energy,
            MHE(2.0, bounded=False),
            MHE(sample=3),
            CoMHE(projection=RandomProjection(3, 2)),
            keras_mhe.MGD(),
            keras_mhe.MHS(),
            keras_mhe.RMHP(),
            lambda kernel: keras_mhe.class_energy(kernel, np.array([1, 2])),
        ],
        ids=["energy", "MHE", "sample", "CoMHE", "MGD", "MHS", "RMHP", "classes"],
    )
    def test_directional_derivative_is_the_product_with_the_gradient(self, function):
        import jax

        direction = normals(8, 7, seed=1)
        gradient = jax.grad(function)(KERNEL)
        value, derivative = jax.jvp(function, (KERNEL,), (direction,))
        assert float(value) == pytest.approx(float(function(KERNEL)))
        assert float(derivative) == pytest.approx(float(np.sum(gradient * direction)), rel=1e-4)
        compiled = jax.jit(jax.jacfwd(function))(KERNEL)
        np.testing.assert_allclose(compiled, gradient, rtol=1e-4, atol=1e-6)

    def test_hessian_is_the_jacobian_of_the_gradient(self):
        import jax

        energy = keras_mhe.hyperspherical_energy
        forward = jax.jit(jax.hessian(energy))(KERNEL)
        reverse = jax.jit(jax.jacrev(jax.grad(energy)))(KERNEL)
        np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-6)

    def test_missing_second_derivatives_raise_a_clear_error(self):
        import jax

        gradient = jax.grad(MHE(sample=3))
        with pytest.raises(NotImplementedError, match="Received: 7 neurons"):
            jax.jvp(gradient, (KERNEL,), (KERNEL,))
        with pytest.raises(NotImplementedError, match="Received: 7 neurons"):
            jax.grad(lambda kernel: gradient(kernel).sum())(KERNEL)
