"""Runs programs that need several devices, or that are killed, in separate processes."""

import os
import subprocess
import sys

import keras
import pytest


def run(program, *arguments, devices=1, **variables):
    """Runs Python source in a separate process and returns the completed process with its output.

    The process imports the installed package, not the one in the working directory.
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
    """Runs Python source with two CPU devices for JAX, and asserts that it succeeds."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("Keras distributes on TensorFlow and JAX")
    result = run(program, devices=2)
    assert result.returncode == 0, result.stderr
