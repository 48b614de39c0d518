"""Which backend and which copy of the package a run tests."""

import os
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import keras
import pytest

import keras_mhe

# Every new shape is a new XLA program: few examples, no deadline.
hypothesis.settings.register_profile("programs", max_examples=20, deadline=None)
hypothesis.settings.load_profile("programs")


def pytest_report_header() -> str:
    package = Path(keras_mhe.__file__).parent
    return f"keras {keras.__version__} on {keras.backend.backend()}, keras_mhe from {package}"


@pytest.fixture
def float64():
    """Lets JAX hold float64; the other backends always do."""
    if keras.backend.backend() == "jax":
        import jax

        if hasattr(jax, "enable_x64"):
            scope = jax.enable_x64(True)
        else:  # where it lived before it was public
            from jax.experimental import enable_x64

            scope = enable_x64(True)
    else:
        scope = nullcontext()
    with scope:
        yield
