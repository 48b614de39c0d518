"""Compressive MHE: random projections against their products, learned ones against one energy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from benchmarks.contenders import value_and_gradient
from benchmarks.timing import compared, rounds
from keras_mhe import AdversarialProjection, AngleProjection, CoMHE, RandomProjection
from keras_mhe._backend import compiled, normals
from keras_mhe.seeds import fingerprint, seed_of

SHAPE, DIM, COUNT = (2304, 256), 30, 20
QUICK_SHAPE = (288, 32)


def _products(kernel: Any) -> Any:
    """What random projections cost at least: normals, projected neurons, cosines, and back."""
    d, n = kernel.shape
    rows = normals((COUNT * DIM, d), "float32", seed_of(fingerprint(kernel)))
    points = ops.reshape(ops.matmul(rows, kernel), (COUNT, DIM, n))
    pull = ops.matmul(points, ops.matmul(ops.swapaxes(points, -1, -2), points))
    return ops.matmul(ops.transpose(rows), ops.reshape(pull, (COUNT * DIM, n)))


def _step(regularizer: Any, state: dict[str, Any]) -> Callable[[Any], Any]:
    """What the regularizer does in a training step: learns, then gives its loss."""

    def loss(kernel: Any) -> Any:
        return regularizer.energy(kernel, regularizer.advanced(kernel, state))

    return loss


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each contender: seconds, and the ratio to its measure within the same round."""
    shape = QUICK_SHAPE if quick else SHAPE
    generator = np.random.default_rng(0)
    kernel = ops.convert_to_tensor(generator.standard_normal(shape).astype("float32"))
    start = generator.standard_normal((DIM, shape[0])).astype("float32")
    state = {"projection": ops.convert_to_tensor(start)}
    one = CoMHE(projection=AdversarialProjection(DIM, unroll=False))
    functions = {
        "one projection": lambda kernel: one.energy(kernel, state),
        "random": CoMHE(projection=RandomProjection(DIM, COUNT)),
        "adversarial": _step(CoMHE(projection=AdversarialProjection(DIM)), state),
        "angle": _step(CoMHE(projection=AngleProjection(DIM)), state),
    }
    programs = {name: value_and_gradient(f, shape) for name, f in functions.items()}
    programs = {"products": compiled(_products, (shape, "float32")), **programs}
    times, compilation = rounds(
        {name: lambda program=program: program(kernel) for name, program in programs.items()},
        count=3 if quick else 15,
        least=0.02 if quick else 0.2,
    )
    against = {"products": "products", "random": "products"}
    return [
        {
            "shape": list(shape),
            "dim": DIM,
            "count": COUNT,
            "contender": name,
            "against": against.get(name, "one projection"),
            **compared(times, name, against.get(name, "one projection")),
            "compilation_seconds": compilation[name],
        }
        for name in programs
    ]
