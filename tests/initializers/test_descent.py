"""Gradient steps: energies and gradients of the oracle, monotone descent, tight frames."""

import numpy as np
import oracle
import pytest
from helpers import POWERS, SPACES, normals

from keras_mhe.energies._potential import PotentialSpec
from keras_mhe.initializers import _descent
from keras_mhe.initializers._descent import _energy_and_gradient, descend, normalized, tight_frame

pytestmark = pytest.mark.once


def start(d, n, seed=0):
    return normalized(normals(d, n, seed=seed, dtype="float64"))


@pytest.mark.parametrize("s", POWERS)
@pytest.mark.parametrize("half_space", SPACES)
def test_energy_and_gradient_are_those_of_the_oracle(s, half_space, monkeypatch):
    monkeypatch.setattr(_descent, "_PANEL", 1)
    unit = start(2, 12)
    potential = PotentialSpec(s, half_space=half_space).potential(12, 2, "float64")
    # Some pairs are softened.
    assert np.max(unit.T @ unit - 2 * np.eye(12)) > 1 - potential.epsilon / 2
    energy, gradient = _energy_and_gradient(unit, potential)
    options = {"s": s, "half_space": half_space, "epsilon": potential.epsilon}
    expected = oracle.energy(unit, **options)
    assert potential.energy_from_mean(2 * energy / (12 * 11), 12) == pytest.approx(expected)
    slopes = oracle.gradient(unit, **options)
    share, _ = potential.shares(12)
    np.testing.assert_allclose(share * 2 * gradient / (12 * 11), slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half_space", SPACES)
def test_no_step_raises_the_energy(half_space):
    potential = PotentialSpec(half_space=half_space).potential(40, 8, "float64")
    unit = start(8, 40)
    energies = [_energy_and_gradient(descend(unit, potential, k), potential)[0] for k in range(40)]
    assert np.all(np.diff(energies) <= 0)
    assert energies[-1] < energies[0]


def test_no_steps_leave_directions_unchanged():
    unit = start(8, 40)
    potential = PotentialSpec().potential(40, 8, "float64")
    assert descend(unit, potential, 0) is unit


def test_steps_end_where_the_gradient_is_zero(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return _energy_and_gradient(*args)

    monkeypatch.setattr(_descent, "_energy_and_gradient", counted)
    potential = PotentialSpec(half_space=True).potential(3, 3, "float64")
    np.testing.assert_array_equal(descend(np.eye(3), potential, 1000), np.eye(3))
    assert len(calls) == 1
    descend(start(3, 3), potential, 1000)
    assert len(calls) < 100


@pytest.mark.parametrize(("n", "d"), [(100, 16), (1000, 16), (20, 6)])
def test_rounds_lead_to_balanced_tight_frames(n, d):
    unit = tight_frame(start(d, n), 30, half_space=False)
    np.testing.assert_allclose(d / n * unit @ unit.T, np.eye(d), atol=1e-3)
    np.testing.assert_allclose(np.mean(unit, axis=1), 0, atol=1e-3)
    unit = tight_frame(start(d, n), 30, half_space=True)
    np.testing.assert_allclose(d / n * unit @ unit.T, np.eye(d), atol=1e-3)
