"""Products in full precision on every backend, and the device of new tensors."""

import re
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import normals, squared_gradient

import keras_mhe
from keras_mhe import MGD, MHC, MHE, MHP, MHS, CoMHE, HalfSpaceMHE
from keras_mhe._backend import _devices, compiled, matmul, on_cpu
from keras_mhe.energies import _pair_sums
from keras_mhe.energies._programs import fresh_programs

SHAPE, LABELS = (12, 10), np.array([1, 4, 4], "int32")


def loss_of(regularizer):
    """Returns a function of a kernel: the loss of a regularizer after an update of its state."""

    def loss(kernel):
        shapes = regularizer.state_shapes(SHAPE[0])
        state = {k: keras.ops.convert_to_tensor(normals(*shape)) for k, shape in shapes.items()}
        return regularizer.energy(kernel, regularizer.update_state(kernel, state))

    return loss


LOSSES = {
    "one matrix": loss_of(HalfSpaceMHE()),
    "second derivative": lambda kernel: squared_gradient(kernel, half_space=True),
    "groups of neurons": loss_of(MHE(sample=5)),
    "class energy": lambda kernel: keras_mhe.class_energy(kernel, LABELS),
    "random projections": loss_of(CoMHE(projection=keras_mhe.RandomProjection(4, 2))),
    "angle projection": loss_of(CoMHE(projection=keras_mhe.AngleProjection(4))),
    "adversarial projection": loss_of(CoMHE(projection=keras_mhe.AdversarialProjection(4))),
    "nearest neurons": loss_of(MHS(half_space=True)),
    "determinant": loss_of(MGD(half_space=True)),
    "worst pole": loss_of(MHP(pole="worst")),
    "worst pole, covering": loss_of(MHC(half_space=True, pole="worst")),
}


def products_of(loss):
    """Returns the lines of all products in the program of a loss and its gradient."""
    if keras.backend.backend() == "jax":
        import jax

        text = jax.jit(jax.value_and_grad(loss)).lower(normals(*SHAPE)).as_text()
        return re.findall(r".*stablehlo\.dot_general.*", text)
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def program(kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = loss(kernel)
        return tape.gradient(value, kernel)

    kernel = tf.convert_to_tensor(normals(*SHAPE))
    text = program.experimental_get_compiler_ir(kernel)(stage="hlo")
    assert "custom-call" not in text  # a library call could hide a product
    return re.findall(r".* dot\(.*", text)


@pytest.fixture
def programs_of_a_gpu():
    """Builds programs as on a GPU: on a CPU, TensorFlow needs no special product."""
    with mock.patch.object(_devices, "on_cpu", return_value=False), fresh_programs():
        yield


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch does not compile with XLA")
@pytest.mark.usefixtures("programs_of_a_gpu")
class TestPrograms:
    """Every product in a program requests full precision, on hardware that has less by default."""

    @staticmethod
    def assert_full_precision(loss):
        products = products_of(loss)
        assert products
        for product in products:
            assert re.search(r"operand_precision=\{highest,highest\}|\[HIGHEST, HIGHEST\]", product)

    @pytest.mark.parametrize("name", LOSSES)
    def test_every_product_requests_full_precision(self, name):
        self.assert_full_precision(LOSSES[name])

    def test_every_product_of_panels_requests_full_precision(self):
        with mock.patch.object(_pair_sums, "_matrix_and_panel_size", return_value=(4, 16)):
            self.assert_full_precision(LOSSES["one matrix"])

    def test_product_of_keras_does_not_request_it(self):
        """The tests above can fail: `keras.ops.matmul` is what one would write by mistake."""
        ops = keras.ops
        products = products_of(lambda k: ops.sum(ops.matmul(ops.transpose(k), k)))
        assert products
        assert "highest" not in "".join(products).lower()


class TestMatmul:
    @pytest.mark.usefixtures("programs_of_a_gpu")
    @pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5))])
    def test_product_and_its_derivative_match_numpy(self, shapes, float64):
        a, b = (normals(*shape, seed=i, dtype="float64") for i, shape in enumerate(shapes))
        weight = normals(*(a @ b).shape, seed=2, dtype="float64")

        def function(a):
            factor, weights = (keras.ops.convert_to_tensor(x, "float64") for x in (b, weight))
            return keras.ops.sum(weights * matmul(a, factor))

        value, gradient = value_and_gradient(compiled(function, (a.shape, "float64")), a)
        assert value == pytest.approx(np.sum(weight * (a @ b)))
        expected = weight @ np.swapaxes(b, -1, -2)
        expected = np.sum(expected, axis=tuple(range(expected.ndim - a.ndim)))
        np.testing.assert_allclose(gradient, expected)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch has process-wide settings")
class TestProcessSettings:
    """Settings of a PyTorch process do not change programs, and programs do not change them."""

    # Settings last as long as the process, so each test has its own.
    @pytest.mark.parametrize(
        "setting",
        [
            "torch.set_float32_matmul_precision('medium')",
            *(
                pytest.param(setting, marks=pytest.mark.slow)
                for setting in (
                    "pass",
                    "torch.backends.cuda.matmul.allow_tf32 = True",
                    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
                    "torch.backends.fp32_precision = 'tf32'",
                )
            ),
        ],
    )
    def test_products_in_a_program_are_exact(self, setting):
        import torch

        if "fp32" in setting and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            pytest.skip("this setting is new in PyTorch 2.9")
        code = f"""
import torch
from keras_mhe._backend import compiled, matmul

def precisions():
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn
    if not hasattr(backends[0], "fp32_precision"):
        return [torch.get_float32_matmul_precision()]
    return [backends[0].fp32_precision, backends[1].matmul.fp32_precision]

{setting}
before = precisions()
inside = []

def function(x):
    # PyTorch checks this before a product on a GPU. It raises if kinds of settings differ.
    assert not torch.backends.cuda.matmul.allow_tf32
    inside.append(precisions())
    if x.shape[0] == 3:
        raise ValueError
    return matmul(x, x)

program = compiled(function)
program(torch.ones((2, 2)))
try:
    program(torch.ones((3, 3)))
except ValueError:
    pass
assert precisions() == before
assert len(inside) == 2
for names in inside:
    assert set(names) <= {{"ieee", "none", "highest"}}
"""
        subprocess.run([sys.executable, "-c", code], check=True)


def test_on_cpu_says_where_new_tensors_are():
    tensor = keras.ops.zeros(())
    device = tensor.device if keras.backend.backend() == "tensorflow" else str(tensor.device)
    assert on_cpu() == ("cpu" in str(device).lower())
