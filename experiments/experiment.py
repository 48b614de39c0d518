"""What an experiment is to what runs, compares and draws it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.records import Config, Record, Value


class InputError(ValueError):
    """What was asked for cannot be done: a sentence for whoever asked."""


class Outcome(NamedTuple):
    """What a run measured: numbers by name, and what else a picture needs, as JSON can hold it."""

    figures: dict[str, float]
    details: dict[str, Any] | None = None


def _as_they_are(records: list[Record]) -> list[Record]:
    return records


class Experiment(NamedTuple):
    """A program of one run, and how its runs are compared.

    Attributes:
        name: what its command and its pictures are called.
        about: what its command does.
        run: from a config and the place of the data to an `Outcome`.
        variants: what there is to compare, the baseline first.
        headlines: figures that are compared in pairs, the first of them drawn; others are shown.
        grid: the other parts of a config, and their values unless told otherwise: all combinations.
        quick: what is other in a check that takes a minute at most.
        asked: variants that run unless told otherwise; none is all.
        chance: the first headline of a network that has learned nothing, by config.
        along: part of the config that the picture has on its axis; None puts variants there.
        seen_as: from the records of the runs to those that are compared.
        closer: another picture of the records of the runs.
        runs: name of the experiment whose runs these are; None is its own.
    """

    name: str
    about: str | None
    run: Callable[[Config, str], Outcome]
    variants: tuple[str, ...]
    headlines: tuple[str, ...]
    grid: dict[str, tuple[Value, ...]]
    quick: dict[str, tuple[Value, ...]]
    asked: tuple[str, ...] = ()
    chance: Callable[[Config], float] | None = None
    along: str | None = None
    seen_as: Callable[[list[Record]], list[Record]] = _as_they_are
    closer: Callable[[list[Record]], Figure] | None = None
    runs: str | None = None
