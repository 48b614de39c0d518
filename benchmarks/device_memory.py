"""Memory that a program needs on an accelerator, in addition to its arguments and results."""

from collections.abc import Callable
from typing import Any

import keras

from keras_mhe._backend import on_cpu


def temporary_mib(program: Callable[[Any], Any], kernel: Any) -> float | None:
    """Returns the MiB of temporary memory, or `None` where the backend does not tell.

    On JAX, it is what the compiler plans. On PyTorch with CUDA, it is the peak of a call.
    """
    if keras.backend.backend() == "jax":
        analysis = program.lower(kernel).compile().memory_analysis()
        return None if analysis is None else analysis.temp_size_in_bytes / 2**20
    if keras.backend.backend() == "torch" and not on_cpu():
        import torch

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        results = program(kernel)
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated() - before
        del results
        return (torch.cuda.max_memory_allocated() - before - kept) / 2**20
    return None
