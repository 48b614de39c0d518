"""Runs the configs that a file of results lacks, each in a process of its own."""

import datetime
import importlib
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.experiment import Experiment, InputError
from experiments.records import Config, Record, append, config_key, read, remove_incomplete_line

# Parts of the configs of all experiments.
_COMMON_PARTS = {"experiment", "backend", "variant", "seed"}


def _exit_with_parent() -> None:
    """Makes a worker exit when its parent process ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_config(config: Config, sources: dict[str, str]) -> Record:
    """Runs a config in this process and returns its record.

    Args:
        config: `"experiment"` names the module, `"seed"` sets all random numbers.
        sources: locations of data, by the names that configs have for them.
    """
    import keras

    from workloads.machine import describe_machine

    experiment: Experiment = importlib.import_module(
        f"experiments.{config['experiment']}"
    ).experiment
    if unknown := config.keys() - experiment.grid.keys() - _COMMON_PARTS:
        raise InputError(
            f"The parts of {experiment.name} are {', '.join(experiment.grid)}. "
            f"Received: {', '.join(sorted(unknown))}"
        )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # TensorFlow warns of many traced functions, and every run traces its own.
        tf.get_logger().setLevel("ERROR")
    keras.utils.clear_session()
    keras.utils.set_random_seed(int(config["seed"]))
    start = time.perf_counter()
    outcome = experiment.run(config, sources.get(str(config.get("data")), ""))
    record = {
        "config": config,
        "figures": {name: round(float(value), 5) for name, value in outcome.metrics.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
    }
    return record | ({"details": outcome.details} if outcome.details else {})


def run_missing(
    configs: list[Config], sources: dict[str, str], path: Path, workers: int, console: Console
) -> None:
    """Runs the configs that `path` lacks, and appends each record when its run ends.

    A run that was interrupted starts again from its beginning. If a run fails, the runs beside it
    finish and are recorded before its error is raised.

    Args:
        configs: configs to run; `"experiment"` names the module, `"seed"` sets all random numbers.
        sources: locations of data, by the names that configs have for them.
        path: file of JSON lines.
        workers: number of runs at the same time. Each run computes on one core, so its numbers do
            not depend on the number of workers.
        console: where progress is shown.
    """
    remove_incomplete_line(path)
    # A run on any card counts.
    recorded = {config_key(record["config"]) for record in read(path).values()}
    wanted = {config_key(config): config for config in configs}
    missing = [config for key, config in wanted.items() if key not in recorded]
    if len(missing) < len(wanted):
        console.print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {path.name}.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_exit_with_parent
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress, pool:
        futures = [pool.submit(run_config, config, sources) for config in missing]
        first_error = None
        try:
            for future in progress.track(as_completed(futures), len(futures), description="runs"):
                if future.cancelled():
                    continue
                if error := future.exception():
                    first_error = first_error or error
                    for other in futures:
                        other.cancel()
                else:
                    append(path, future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if first_error:
        raise first_error
