"""Describes the machine that a result was measured on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else str(device.device_kind)
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU"))


def describe_machine() -> dict[str, Any]:
    """Returns processor, cores, accelerator, backend and versions of packages."""
    backend = keras.backend.backend()
    packages = ["keras", "numpy", "jax"] if backend == "jax" else ["keras", "numpy"]
    if backend == "tensorflow":
        import tensorflow as tf

        versions = {"tensorflow": tf.__version__}
    else:
        versions = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "accelerator": _accelerator(),
        "backend": backend,
        "python": platform.python_version(),
        "versions": versions | {name: version(name) for name in packages},
    }


def file_stem(machine: dict[str, Any]) -> str:
    """Returns a file name, without extension, for results of a machine."""
    hardware = machine["accelerator"] or f"{machine['processor']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", f"{hardware} {machine['backend']}".lower()).strip("-")
