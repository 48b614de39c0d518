"""What only PyTorch has: its modules, graphs of gradients, compiled steps, parallel processes."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import energy_and_gradient, normals
from subprocesses import run

from keras_mhe import (
    MGD,
    MHE,
    MHP,
    MHS,
    CoMHE,
    HalfSpaceMHE,
    RandomProjection,
    class_energy,
    hyperspherical_energy,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if keras.backend.backend() != "torch":
    pytest.skip("Keras does not run on PyTorch", allow_module_level=True)


class TestModules:
    """Modules of PyTorch use the functions and regularizers of the package directly."""

    def test_neurons_of_a_linear_layer_are_its_rows(self):
        layer = torch.nn.Linear(12, 5)
        energy = hyperspherical_energy(layer.weight, half_space=True, neuron_axis=0)
        energy.backward()
        weight = layer.weight.detach().numpy()
        value, gradient = energy_and_gradient(weight.T, half_space=True)
        assert float(energy) == pytest.approx(value)
        np.testing.assert_allclose(layer.weight.grad.numpy(), gradient.T, rtol=1e-5, atol=1e-7)

    def test_neurons_of_a_convolution_are_its_first_axis(self):
        layer = torch.nn.Conv2d(4, 6, 3)
        weight = layer.weight.detach().numpy()
        loss = MHE(2.0, neuron_axis=0)(layer.weight)
        loss.backward()
        assert float(loss) == pytest.approx(2 * energy_and_gradient(weight, neuron_axis=0)[0])
        assert torch.all(torch.isfinite(layer.weight.grad))

    def test_training_spreads_the_classes_of_a_torch_classifier(self):
        torch.manual_seed(0)
        head = torch.nn.Linear(3, 10, bias=False)
        labels = torch.arange(10)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        energies = []
        for _ in range(20):
            optimizer.zero_grad()
            energy = class_energy(head.weight, labels, neuron_axis=0)
            energy.backward()
            optimizer.step()
            energies.append(float(energy))
        assert energies[-1] < 0.9 * energies[0]

    def test_example_of_the_page_runs(self):
        page = (Path(__file__).parents[1] / "docs" / "pytorch.md").read_text("utf-8")
        [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        names = {}
        exec(example, names)
        assert all(torch.any(p.grad) for p in names["network"].parameters())


REGULARIZERS = {
    "MHE": HalfSpaceMHE(),
    "sample": MHE(sample=4),
    "CoMHE": CoMHE(projection=RandomProjection(4, 2)),
    "MHS": MHS(),
    "MHP": MHP(pole="worst"),
    "MGD": MGD(half_space=True),
}


class TestGraphs:
    """Losses are usual tensors of PyTorch."""

    @pytest.mark.parametrize("name", REGULARIZERS)
    def test_graph_can_be_retained_and_no_grad_gives_the_same_value(self, name):
        kernel = torch.tensor(normals(6, 9), requires_grad=True)
        loss = REGULARIZERS[name](kernel)
        loss.backward(retain_graph=True)
        first = kernel.grad.clone()
        loss.backward()
        torch.testing.assert_close(kernel.grad, 2 * first)
        with torch.no_grad():
            value = REGULARIZERS[name](kernel)
        assert not value.requires_grad
        torch.testing.assert_close(value, loss.detach())

    @pytest.mark.parametrize("name", [name for name in REGULARIZERS if name != "MHE"])
    def test_second_derivatives_that_do_not_exist_raise(self, name):
        kernel = torch.tensor(normals(6, 9), requires_grad=True)
        [gradient] = torch.autograd.grad(REGULARIZERS[name](kernel), kernel, create_graph=True)
        with pytest.raises(NotImplementedError, match="Second derivatives are not available"):
            torch.autograd.grad(torch.sum(gradient**2), kernel)

    def test_gradients_of_a_recorded_gradient_equal_those_of_a_plain_one(self):
        kernel = torch.tensor(normals(6, 9), requires_grad=True)
        gradients = [
            torch.autograd.grad(HalfSpaceMHE()(kernel), kernel, create_graph=recorded)[0]
            for recorded in (False, True)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MHE", "sample", "CoMHE"])
def test_compiled_steps_have_the_losses_of_eager_steps(name):
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(16, kernel_regularizer=REGULARIZERS[name])
        model = keras.Sequential([keras.Input((8,)), layer])
        # The prediction has no effect, so weights have equal bits, and draws are equal.
        model.compile(
            keras.optimizers.SGD(0.1), lambda y, p: 0.0 * p[:, 0], jit_compile=jit_compile
        )
        x, y = np.ones((4, 8), "float32"), np.zeros((4, 1), "float32")
        losses.append([float(model.train_on_batch(x, y)) for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(set(losses[0])) == 3


PARALLEL = """
import os, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch, keras
from torch.distributed import init_process_group, all_gather_object
from torch.nn.parallel import DistributedDataParallel
from keras_mhe import CoMHE, HalfSpaceMHE, MHP, HypersphericalRegularization, RandomProjection

rank, port = int(sys.argv[1]), sys.argv[2]
init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((8,)),
    keras.layers.Dense(16, "relu", kernel_regularizer=CoMHE(projection=RandomProjection(4, 2))),
    HypersphericalRegularization(keras.layers.Dense(9), MHP(half_space=True)),
    keras.layers.Dense(3, kernel_regularizer=HalfSpaceMHE()),
])
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.05)
torch.manual_seed(rank)  # each process has its own batches
for _ in range(4):
    optimizer.zero_grad()
    prediction = parallel(torch.randn(4, 8), training=True)
    (torch.mean(prediction**2) + sum(model.losses)).backward()
    optimizer.step()
weights = [None, None]
all_gather_object(weights, model.get_weights())
energies = [None, None]
all_gather_object(energies, [float(loss) for loss in model.losses])
assert energies[0] == energies[1], energies
for a, b in zip(*weights):
    assert (a == b).all()
"""


@pytest.mark.slow
def test_processes_of_distributed_data_parallel_stay_equal():
    """Draws and learned states depend on weights only, so they are equal in all processes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda rank: run(PARALLEL, rank, port), range(2)))
    for result in results:
        assert result.returncode == 0, result.stderr
