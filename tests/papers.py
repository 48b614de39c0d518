"""Values of the papers' released programs for some kernels, and the values of this package."""

import json
import math
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from differentiate import value_and_gradient
from helpers import normals

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
)
from keras_mhe.energies._neurons import neuron_matrix
from keras_mhe.energies._programs import fresh_programs
from keras_mhe.regularizers import _projections


def cases_of(paper):
    """Returns the cases of `mhe`, `uniformity` or `comhe`."""
    return json.loads((Path(__file__).parent / "data" / f"papers_{paper}.json").read_text())


def projections_of(case):
    """Returns the projections of a case of CoMHE, of shape `(count, dim, d)`."""
    shape = (case["pd"], math.prod(case["shape"][:-1]))
    return np.stack([normals(*shape, seed=case["proj_seed"] + i) for i in range(case.get("pn", 1))])


def _energy(case):
    power, angular = case["power"][-1], case["power"].startswith("a")
    distance = "angular" if angular else "euclidean"
    half_space = case["kind"] == "half_mhe"
    scale = {"0": 2, "a1": 0.1 * math.pi, "a2": 0.1 * math.pi**2}.get(case["power"], 1)
    scale *= 10 if case["kind"] == "final" else 1
    offset = math.log(math.pi) * scale if case["power"] == "a0" else 0
    options = {"distance": distance, "half_space": half_space, "softening": 0}
    return MHE(1.0, float(power), **options), {}, scale, offset


def _uniformity(case):
    final = case["part"] == "final"
    scales = {"mhs": (1, 0.2), "mhp": (-10, -1)}
    scale = scales.get(case["kind"], (0.1, 0.01))[0 if final else 1]
    regularizer = {
        "mhs": lambda: MHS(half_space=not final),
        "mgd": lambda: MGD(half_space=not final),
        "r_mhp": RMHP,
        "mhp": lambda: MHP(half_space=not final, softening=0),
        "mhc": lambda: MHC(half_space=not final),
    }[case["kind"]]()
    state = {}
    if "pole_seed" in case:
        state["pole"] = normals(1, math.prod(case["shape"][:-1]), seed=case["pole_seed"])[0]
    return regularizer, state, scale, 0


def _compressive(case):
    if case["kind"] == "random":
        return CoMHE(projection=RandomProjection(case["pd"], case["pn"]), softening=0), {}, 1, 0
    learned = {"angle": AngleProjection, "adversarial": AdversarialProjection}[case["kind"]]
    projection = learned(case["pd"], learning_rate=case["lr"])
    return CoMHE(projection=projection, softening=0), {"projection": projections_of(case)[0]}, 1, 0


def package_values(case):
    """Returns the energy, the norm of its gradient and the product of its gradient with the probe.

    All are scaled as the papers' programs scale them.
    """
    build = _energy if "power" in case else _uniformity if "part" in case else _compressive
    regularizer, state, scale, offset = build(case)
    state = {name: keras.ops.convert_to_tensor(value) for name, value in state.items()}
    kernel = normals(*case["shape"], seed=case["seed"], dtype="float64") * case.get("scale", 1)
    draws = keras.ops.convert_to_tensor(projections_of(case)) if "pn" in case else None
    # Without `fresh_programs`, other tests would run programs that contain these projections.
    with mock.patch.object(_projections._Draw, "projections", return_value=draws), fresh_programs():
        value, gradient = value_and_gradient(
            lambda k: regularizer.energy(neuron_matrix(k), state), kernel.astype("float32")
        )
    probe = np.random.default_rng(999).standard_normal(kernel.shape)
    norm = abs(scale) * np.linalg.norm(gradient)
    return scale * value + offset, norm, scale * np.sum(gradient * probe)


def differences(case):
    """Returns the differences from the papers' programs, relative to their value and norm."""
    value, norm, product = package_values(case)
    expected = case["gnorm"]
    return (
        abs(value - case["loss"]) / abs(case["loss"]),
        abs(norm - expected) / expected,
        abs(product - case["gprobe"]) / expected,
    )
