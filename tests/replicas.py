"""Programs that need two devices: they run in a process of their own."""

import os
import subprocess
import sys

import keras
import pytest


def run_on_two_devices(program):
    """Runs Python source where JAX sees two CPU devices; its failure is the test's."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("Keras distributes on TensorFlow and JAX")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
