"""Keeps the log of TensorFlow out of the terminal.

TensorFlow writes its first lines before it reads `TF_CPP_MIN_LOG_LEVEL`, so no variable hides them.
They are removed by a process of their own: it still prints the other lines if this one crashes.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# The time and the level of a line, in the formats of newer and of older versions.
_TIMES = rb"(?:%s\d{4} |\d{4}-\d\d-\d\d [\d:.]+: %s )"
# Information, warnings, and two errors that every machine without a working GPU or with several
# copies of a CUDA library has.
_LOG = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|"
    + _TIMES.replace(b"%s", b"[IW]")
    + rb"|"
    + _TIMES.replace(b"%s", b"E")
    + rb".*(?:Unable to register cu\w+ factory|failed call to cuInit)"
)


@contextmanager
def without_tensorflow_log() -> Iterator[None]:
    """Removes TensorFlow's information and warnings from standard error, also those of C++.

    Does nothing if `TF_CPP_MIN_LOG_LEVEL` is set: then the user has decided what to see.
    """
    # Python has no standard error if the file descriptor is closed.
    if _LEVEL in os.environ or sys.stderr is None:
        yield
        return
    # Messages of several lines obey the level.
    os.environ[_LEVEL] = "2"
    printer = subprocess.Popen([sys.executable, "-IS", __file__], stdin=subprocess.PIPE)
    assert printer.stdin is not None
    terminal = os.dup(2)
    os.dup2(printer.stdin.fileno(), 2)
    printer.stdin.close()
    try:
        yield
    finally:
        del os.environ[_LEVEL]
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        # It ends with the last copy of the pipe, and has then printed everything.
        printer.wait()


def _print_other_lines() -> None:
    """Copies standard input to standard error without the lines of the log."""
    # Ctrl-C also reaches this process, which has to print what the command says about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if not _LOG.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    _print_other_lines()
