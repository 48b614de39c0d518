"""Checks of arguments: each returns the value as a plain Python type, or raises one sentence."""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def as_integer(value: Any) -> int:
    """Returns an integer, and raises `TypeError` for everything else, `bool` included."""
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def check_integer(value: Any, name: str, least: int, expected: str) -> int:
    """Returns an integer of at least `least`; `expected` describes it in the error message."""
    message = (
        f"Invalid value for argument `{name}`. Expected {expected}. Received: {name}={value!r}"
    )
    try:
        number = as_integer(value)
    except TypeError:
        raise TypeError(message) from None
    if number < least:
        raise ValueError(message)
    return number


def check_nonnegative(value: Any, name: str) -> float:
    """Returns a finite number that is zero or larger."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected a number. Received: {name}={value!r}"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number < math.inf:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite number, zero or larger. "
            f"Received: {name}={value!r}"
        )
    return number


def check_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Returns one of several words."""
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected {expected}. Received: {name}={value!r}"
        )
    return value


def check_flag(value: Any, name: str) -> bool:
    """Returns True or False; accepts NumPy's booleans."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"Invalid value for argument `{name}`. Expected True or False. "
            f"Received: {name}={value!r}"
        )
    return bool(value)
