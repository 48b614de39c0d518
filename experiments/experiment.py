"""Definition of an experiment: what runs, what is compared and what is drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.records import Config, Record, Value

# Parts of a config, `"variant"` among them, with the values to select. Other parts may be anything.
Selection = dict[str, tuple[Value, ...]]


class InputError(ValueError):
    """An option cannot be used. The message is for the user, who gets no traceback."""


class Outcome(NamedTuple):
    """Results of a run: metrics by name, and data for plots in types that JSON has."""

    metrics: dict[str, float]
    details: dict[str, Any] | None = None


def _identity(records: list[Record]) -> list[Record]:
    return records


class Experiment(NamedTuple):
    """An experiment: the function of one run, and how runs are compared.

    Attributes:
        name: name of the command and of the files with tables and plots.
        description: help text of the command.
        run: function from a config and the location of the data to an `Outcome`.
        variants: what is compared; the baseline comes first.
        main_metrics: metrics that are compared with the baseline. Plots with an `x_axis` show the
            first one. Tables list the other metrics without a comparison.
        grid: the other parts of a config with their default values. All combinations run.
        quick_grid: values that replace those of `grid` in a check of at most a minute.
        page_rows: comparisons that the README shows: those that match at least one selection. The
            empty selection matches all.
        page_metrics: metrics in the README's table; empty means `main_metrics`.
        default_variants: variants that run by default; empty means all.
        chance_level: first main metric of a network that has learned nothing, by config.
        plotted_variants: variants in the plot; empty means all.
        x_axis: part of the config on the x-axis of the plot; None puts the variants there.
        transform: function from the records of the runs to the records that are compared.
        detail_figure: function that draws another plot from the records of the runs.
        runs_of: name of the experiment whose runs are used; None means this experiment.
    """

    name: str
    description: str | None
    run: Callable[[Config, str], Outcome]
    variants: tuple[str, ...]
    main_metrics: tuple[str, ...]
    grid: dict[str, tuple[Value, ...]]
    quick_grid: dict[str, tuple[Value, ...]]
    page_rows: tuple[Selection, ...] = ({},)
    page_metrics: tuple[str, ...] = ()
    default_variants: tuple[str, ...] = ()
    chance_level: Callable[[Config], float] | None = None
    plotted_variants: tuple[str, ...] = ()
    x_axis: str | None = None
    transform: Callable[[list[Record]], list[Record]] = _identity
    detail_figure: Callable[[list[Record]], Figure] | None = None
    runs_of: str | None = None
