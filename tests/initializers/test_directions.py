"""Directions for any numbers of neurons and coordinates: energies, and bounded numbers of steps."""

import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import POWERS
from hypothesis import given

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.initializers import _directions
from keras_mhe.initializers._descent import _energy_and_gradient, normalized
from keras_mhe.initializers._directions import default_steps, low_energy_directions
from keras_mhe.reference._attainable import position_unit

pytestmark = pytest.mark.once


def directions(n, d, spec, steps=None, seed=0):
    return low_energy_directions(n, d, spec, steps, np.random.default_rng(seed))


def energy(unit, spec):
    d, n = unit.shape
    potential = spec.potential(n, d, "float64")
    total, _ = _energy_and_gradient(unit, potential)
    return potential.energy_from_mean(2 * total / max(n * (n - 1), 1), n)


def share_above_best(unit, spec):
    """0 for the attainable energy, 1 for that of random neurons."""
    best, span = position_unit(unit.shape[1], unit.shape[0], spec)
    return (energy(unit, spec) - best) / span


@given(
    st.integers(1, 60),
    st.integers(1, 24),
    st.sampled_from(POWERS),
    st.booleans(),
    st.integers(0, 2**32),
    st.sampled_from([0, 3, None]),
)
def test_energies_are_never_above_those_of_random_directions(n, d, s, half_space, seed, steps):
    spec = PotentialSpec(s, half_space=half_space)
    unit = directions(n, d, spec, steps, seed)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), 1, atol=1e-12)
    random = normalized(np.random.default_rng(seed).standard_normal((d, n)))
    if steps is None:
        assert energy(unit, spec) <= energy(random, spec) + 1e-9
    _, span = position_unit(n, d, spec)
    if span:
        assert share_above_best(unit, spec) < (0.2 if steps is None else 1)


@pytest.mark.parametrize(
    ("n", "d", "half_space", "most"),
    [
        (10, 3, False, 0.01),
        (100, 3, False, 0.02),
        (100, 3, True, 0.02),
        (40, 8, False, 0.03),
        (100, 16, False, 0.05),
        (100, 16, True, 0.07),
        (72, 64, True, 0.001),
    ],
)
def test_many_neurons_come_close_to_the_attainable_energy(n, d, half_space, most):
    spec = PotentialSpec(half_space=half_space)
    assert share_above_best(directions(n, d, spec), spec) < most


@pytest.mark.parametrize("half_space", [False, True])
def test_more_steps_give_less_energy(half_space):
    spec = PotentialSpec(half_space=half_space)
    energies = [energy(directions(60, 8, spec, steps), spec) for steps in (0, 3, 30)]
    assert energies[0] > energies[1] > energies[2]


def test_without_steps_tight_frames_are_far_below_random_directions():
    spec = PotentialSpec(half_space=True)
    assert share_above_best(directions(1000, 64, spec, 0), spec) < 0.35


@pytest.mark.parametrize(
    ("d", "n", "steps"), [(3, 100, 100), (64, 1000, 39), (512, 1000, 8), (64, 20_000, 0)]
)
def test_default_steps_bound_the_work(d, n, steps):
    assert default_steps(n, d) == steps
    assert steps * n * n * (d + 64) <= 5e9


def test_rounds_are_bounded_too(monkeypatch):
    rounds = []
    monkeypatch.setattr(_directions, "tight_frame", lambda unit, k, half: rounds.append(k) or unit)
    monkeypatch.setattr(_directions, "_ROUND_OPERATIONS", 8 * 8 * 20 * 4)
    for n in (20, 27, 80):
        directions(n, 8, PotentialSpec(), 0)
    assert rounds == [4, 2, 2]


def test_a_power_that_overflows_raises():
    with pytest.raises(ValueError, match=r"`s` is too large: .* Received: s=1000"):
        directions(20, 3, PotentialSpec(1000.0))
