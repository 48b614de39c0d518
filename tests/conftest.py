"""Sets the backend and the compiler flags of a test run, and reports them."""

import gc
import importlib.util
import os
from contextlib import nullcontext
from importlib.metadata import version

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# Compiling takes most of the time of the suite. XLA spends half of it on optimizations, which no
# test needs. `XLA_FLAGS= pytest` compiles programs as users do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis
import pytest

# Every new shape compiles a new XLA program: use few examples and no deadline.
hypothesis.settings.register_profile("programs", max_examples=20, deadline=None)
hypothesis.settings.load_profile("programs")


def pytest_report_header():
    # Import nothing here: the process that starts the workers needs no backend.
    [package] = importlib.util.find_spec("keras_mhe").submodule_search_locations
    flags = os.environ["XLA_FLAGS"] or "no XLA flags"
    backend = f"keras {version('keras')} on {os.environ['KERAS_BACKEND']}"
    return f"{backend}, keras_mhe from {package}, {flags}"


def pytest_configure(config):
    if os.environ["KERAS_BACKEND"] != "jax" or not config.pluginmanager.hasplugin("cacheprovider"):
        return
    # JAX 0.4 crashes when it caches a training step.
    if tuple(map(int, version("jax").split(".")[:2])) < (0, 10):
        return
    # The other workers and the next run use the cached programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax_programs")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_finish():
    # Backends hold millions of objects, and each trace creates thousands. Without this, the garbage
    # collector would scan all of them every few seconds.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def pytest_collection_modifyitems(config, items):
    """Runs tests marked `once` only on TensorFlow, if TensorFlow is installed."""
    backend = os.environ["KERAS_BACKEND"]
    if backend == "tensorflow" or importlib.util.find_spec("tensorflow") is None:
        return
    once = [item for item in items if item.get_closest_marker("once")]
    if once and "once" not in config.option.markexpr:
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if not item.get_closest_marker("once")]


@pytest.fixture
def float64():
    """Enables float64 on JAX; the other backends always support it."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        if hasattr(jax, "enable_x64"):
            scope = jax.enable_x64(True)
        else:  # its place before it was public
            from jax.experimental import enable_x64

            scope = enable_x64(True)
    else:
        scope = nullcontext()
    with scope:
        yield
