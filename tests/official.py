"""What the papers' released programs gave for some kernels, and what this package gives."""

import json
import math
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from differentiate import value_and_gradient
from probes import normals

from keras_mhe import (
    MGD,
    MHC,
    MHE,
    MHP,
    MHS,
    RMHP,
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    RandomProjection,
    projections,
)
from keras_mhe.axes import neuron_matrix


def rows_of(paper):
    """The cases of `mhe`, `uniformity` or `comhe`."""
    return json.loads((Path(__file__).parent / f"official_{paper}.json").read_text())


def drawn(row):
    """The projections of a case of CoMHE, `(count, dim, d)`."""
    shape = (row["pd"], math.prod(row["shape"][:-1]))
    return np.stack([normals(*shape, seed=row["proj_seed"] + i) for i in range(row.get("pn", 1))])


def _energy(row):
    power, angular = row["power"][-1], row["power"].startswith("a")
    distance = "angular" if angular else "euclidean"
    half_space = row["kind"] == "half_mhe"
    scale = {"0": 2, "a1": 0.1 * math.pi, "a2": 0.1 * math.pi**2}.get(row["power"], 1)
    scale *= 10 if row["kind"] == "final" else 1
    offset = math.log(math.pi) * scale if row["power"] == "a0" else 0
    options = {"distance": distance, "half_space": half_space, "softening": 0}
    return MHE(1.0, float(power), **options), {}, scale, offset


def _uniformity(row):
    final = row["part"] == "final"
    scales = {"mhs": (1, 0.2), "mhp": (-10, -1)}
    scale = scales.get(row["kind"], (0.1, 0.01))[0 if final else 1]
    regularizer = {
        "mhs": lambda: MHS(half_space=not final),
        "mgd": lambda: MGD(half_space=not final),
        "r_mhp": RMHP,
        "mhp": lambda: MHP(half_space=not final, softening=0),
        "mhc": lambda: MHC(half_space=not final),
    }[row["kind"]]()
    state = {}
    if "pole_seed" in row:
        state["pole"] = normals(1, math.prod(row["shape"][:-1]), seed=row["pole_seed"])[0]
    return regularizer, state, scale, 0


def _compressive(row):
    if row["kind"] == "random":
        return CoMHE(projection=RandomProjection(row["pd"], row["pn"]), softening=0), {}, 1, 0
    learned = {"angle": AngleProjection, "adversarial": AdversarialProjection}[row["kind"]]
    projection = learned(row["pd"], learning_rate=row["lr"])
    return CoMHE(projection=projection, softening=0), {"projection": drawn(row)[0]}, 1, 0


def computed(row):
    """Value, norm of the gradient and its product with the programs' probe, as they scale them."""
    make = _energy if "power" in row else _uniformity if "part" in row else _compressive
    regularizer, state, scale, offset = make(row)
    state = {name: keras.ops.convert_to_tensor(value) for name, value in state.items()}
    kernel = normals(*row["shape"], seed=row["seed"], dtype="float64") * row.get("scale", 1)
    draws = keras.ops.convert_to_tensor(drawn(row)) if "pn" in row else None
    # No program with these draws in it may stay for other tests.
    with mock.patch.multiple(
        projections,
        _draw=lambda *_: draws,
        _compiled_random=projections._compiled_random.__wrapped__,
    ):
        value, gradient = value_and_gradient(
            lambda k: regularizer.energy(neuron_matrix(k), state), kernel.astype("float32")
        )
    probe = np.random.default_rng(999).standard_normal(kernel.shape)
    norm = abs(scale) * np.linalg.norm(gradient)
    return scale * value + offset, norm, scale * np.sum(gradient * probe)


def differences(row):
    """How far these are from the programs', relative to their value and norm."""
    value, norm, product = computed(row)
    expected = row["gnorm"]
    return (
        abs(value - row["loss"]) / abs(row["loss"]),
        abs(norm - expected) / expected,
        abs(product - row["gprobe"]) / expected,
    )
