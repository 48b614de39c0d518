"""Describes the machine that a result was measured on."""

import os
import platform
import re
import subprocess
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
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU"))


def _driver() -> str | None:
    """Returns the version of the driver of the first NVIDIA GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.splitlines()[0].strip()


def describe_machine() -> dict[str, Any]:
    """Returns processor, cores, accelerator and its driver, backend and versions of packages."""
    backend = keras.backend.backend()
    accelerator = _accelerator()
    packages = ["keras", "numpy", *{"jax": ["jax", "jaxlib"], "torch": ["torch"]}.get(backend, [])]
    if backend == "tensorflow":
        import tensorflow as tf

        versions = {"tensorflow": tf.__version__}
    else:
        versions = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "accelerator": accelerator,
        "driver": accelerator and _driver(),
        "backend": backend,
        "python": platform.python_version(),
        "versions": versions | {name: version(name) for name in packages},
    }


def file_stem(machine: dict[str, Any]) -> str:
    """Returns a file name, without extension, for results of a machine."""
    hardware = machine["accelerator"] or f"{machine['processor']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", f"{hardware} {machine['backend']}".lower()).strip("-")
