"""Energies at every k-th step: which callback each variant trains with."""

import pytest

lazy = pytest.importorskip("experiments.lazy", reason="only a checkout has experiments")


def test_each_variant_has_its_interval():
    intervals = {name: [each.k for each in lazy.energy_every(name)] for name in lazy.INTERVALS}
    expected = {"every 4th": [4], "every 8th": [8], "every 16th": [16]}
    assert intervals == {"every step": [], "no energy": [], **expected}
