"""TensorFlow's log is removed from standard error, and nothing else."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

# Lines of TensorFlow 2.21 and 2.16.
LOG = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795773667.698334   29627 port.cc:153] oneDNN custom operations are on.",
    "W0000 00:00:1795773667.698334   29627 cpu.cc:1] a warning",
    "E0000 00:00:1732.1 17 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to",
    "E0000 00:00:1795773556.92 18231 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA",
    "2026-01-01 10:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
    "2026-01-01 10:00:00.123456: E external/cuda_fft.cc:485] Unable to register cuFFT factory",
]
OTHERS = [
    "E0000 00:00:1795773556.929404   18231 bfc.cc:52] out of memory",
    "F0000 00:00:1795773556.929404   18231 cpu.cc:1] compiled to use AVX instructions",
    "2026-01-01 10:00:00.123456: F tensorflow/core/cpu.cc:1] no AVX",
    "Traceback (most recent call last):",
    "keras-mhe: model.keras does not exist.",
    "INFO is no line of the log, and neither is W0000",
    "",
    "no end of line",
]
PROGRAM = """
import os, signal, sys
from keras_mhe_command._log import without_tensorflow_log
with without_tensorflow_log():
    # As C++ does.
    os.write(2, sys.stdin.buffer.read())
    {inside}
print("after", file=sys.stderr)
"""


def run(lines, inside="pass", program=PROGRAM, level=None):
    """Writes lines to standard error within the context, and returns the completed process."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    command = [sys.executable, "-c", program.format(inside=inside)]
    text = "\n".join(lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment)


def test_lines_of_the_log_are_removed_and_all_others_kept_in_order():
    mixed = [line for pair in zip(LOG, OTHERS, strict=False) for line in pair] + OTHERS[len(LOG) :]
    result = run(mixed, "print('from Python', file=sys.stderr)")
    assert result.stderr == "\n".join(OTHERS) + "from Python\nafter\n"
    assert result.returncode == 0


def test_lines_before_a_crash_are_printed():
    result = run(OTHERS[:3], "os.abort()")
    assert result.returncode == -signal.SIGABRT
    assert result.stderr.splitlines() == OTHERS[:3]


def test_an_exception_ends_the_context_and_is_printed():
    result = run(LOG, "raise ValueError('a reason')")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ValueError: a reason"


def test_the_level_that_the_user_has_set_is_kept():
    result = run(LOG, "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])", level="0")
    assert result.stdout == "0\n"
    assert result.stderr == "\n".join(LOG) + "after\n"


def test_the_level_is_that_of_errors_within_the_context_and_unset_after_it():
    inside = "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    result = run([], inside, PROGRAM + "print('TF_CPP_MIN_LOG_LEVEL' in os.environ)")
    assert result.stdout == "2\nFalse\n"


def test_a_closed_standard_error_is_no_problem():
    # The program starts itself again without standard error.
    program = (
        "import os, sys\n"
        "from keras_mhe_command._log import without_tensorflow_log\n"
        "if sys.stderr is not None:\n"
        "    os.set_inheritable(2, False)\n"
        "    os.execv(sys.executable, sys.orig_argv)\n"
        "with without_tensorflow_log():\n"
        "    {inside}\n"
    )
    result = run([], "print('inside')", program)
    assert (result.returncode, result.stdout) == (0, "inside\n")
