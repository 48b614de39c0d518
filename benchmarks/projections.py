"""CoMHE: random projections against their products, learned ones against one energy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from benchmarks.contenders import value_and_gradient
from benchmarks.timing import program_times, time_and_ratio
from keras_mhe import AdversarialProjection, AngleProjection, CoMHE, RandomProjection
from keras_mhe._backend import matmul, normals
from keras_mhe._random import fingerprint, seed_of
from keras_mhe.energies._programs import program_for

SHAPE, DIM, COUNT = (2304, 256), 30, 20
QUICK_SHAPE = (288, 32)


def _products(kernel: Any) -> Any:
    """Minimum work of random projections: normals, projected neurons, cosines, gradient."""
    d, n = kernel.shape
    rows = normals((COUNT * DIM, d), "float32", seed_of(fingerprint(kernel)))
    points = ops.reshape(matmul(rows, kernel), (COUNT, DIM, n))
    gradient = matmul(points, matmul(ops.swapaxes(points, -1, -2), points))
    return matmul(ops.transpose(rows), ops.reshape(gradient, (COUNT * DIM, n)))


def _training_step(regularizer: Any, state: dict[str, Any]) -> Callable[[Any], Any]:
    """Work of a stateful regularizer in a training step: updates its state, returns its loss."""

    def loss(kernel: Any) -> Any:
        return regularizer.energy(kernel, regularizer.update_state(kernel, state))

    return loss


def measure(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each contender: seconds, and the ratio to its reference."""
    shape = QUICK_SHAPE if quick else SHAPE
    rng = np.random.default_rng(0)
    kernel = ops.convert_to_tensor(rng.standard_normal(shape).astype("float32"))
    projection = rng.standard_normal((DIM, shape[0])).astype("float32")
    state = {"projection": ops.convert_to_tensor(projection)}
    single = CoMHE(projection=AdversarialProjection(DIM, unroll=False))
    functions = {
        "one projection": lambda kernel: single.energy(kernel, state),
        "random": CoMHE(projection=RandomProjection(DIM, COUNT)),
        "random, signs": CoMHE(projection=RandomProjection(DIM, COUNT, distribution="sign")),
        "adversarial": _training_step(CoMHE(projection=AdversarialProjection(DIM)), state),
        "angle": _training_step(CoMHE(projection=AngleProjection(DIM)), state),
    }
    programs = {name: value_and_gradient(f, shape) for name, f in functions.items()}
    programs = {"products": program_for(_products, kernel), **programs}
    times, compilation = program_times(
        programs,
        kernel,
        rounds=3 if quick else 15,
        min_seconds=0.02 if quick else 0.2,
    )
    references = dict.fromkeys(("products", "random", "random, signs"), "products")
    return [
        {
            "shape": list(shape),
            "dim": DIM,
            "count": COUNT,
            "contender": name,
            "against": references.get(name, "one projection"),
            **time_and_ratio(times, name, references.get(name, "one projection")),
            "compilation_seconds": compilation[name],
        }
        for name in programs
    ]
