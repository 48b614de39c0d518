"""Programs that need several devices, or die: they run in a process of their own."""

import os
import subprocess
import sys

import keras
import pytest


def run(program, *arguments, devices=1, **variables):
    """Runs Python source in a process of its own and returns that, ended, with its output.

    The process imports the package that is installed, not what lies in the working directory.
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


def run_on_two_devices(program):
    """Runs Python source where JAX sees two CPU devices; its failure is the test's."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("Keras distributes on TensorFlow and JAX")
    result = run(program, devices=2)
    assert result.returncode == 0, result.stderr
