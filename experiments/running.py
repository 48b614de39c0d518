"""Runs that are still to be done, in processes of their own, each kept as soon as it ends."""

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

from experiments.experiment import Experiment
from experiments.records import Config, Record, append, identity, mend, read


def _end_with_parent() -> None:
    """Has a worker end when its parent was killed, not only when it was asked to."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _work(config: Config, sources: dict[str, str]) -> Record:
    import keras

    from benchmarks import machine

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # It warns of many programs, and every run is another.
        tf.get_logger().setLevel("ERROR")
    experiment: Experiment = importlib.import_module(
        f"experiments.{config['experiment']}"
    ).experiment
    keras.utils.clear_session()
    keras.utils.set_random_seed(int(config["seed"]))
    start = time.perf_counter()
    outcome = experiment.run(config, sources.get(str(config.get("data")), ""))
    record = {
        "config": config,
        "figures": {name: round(float(value), 5) for name, value in outcome.figures.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
    }
    return record | ({"details": outcome.details} if outcome.details else {})


def perform(
    configs: list[Config], sources: dict[str, str], path: Path, workers: int, console: Console
) -> None:
    """Does the runs that `path` lacks, and writes each to it when it ends.

    What was killed is done again from its start. Where a run fails, those beside it end and are
    kept before its error is raised.

    Args:
        configs: what is to be run; `"experiment"` names the module, `"seed"` all that is random.
        sources: where data lie, by the names that configs have for them.
        path: file of JSON lines.
        workers: how many runs at a time. Each computes on one core, so that its numbers do not
            depend on how many there are.
        console: where progress is shown.
    """
    mend(path)
    done = read(path)
    wanted = {identity(config): config for config in configs}
    missing = [config for key, config in wanted.items() if key not in done]
    if len(missing) < len(wanted):
        console.print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {path.name}.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress, pool:
        futures = [pool.submit(_work, config, sources) for config in missing]
        failure = None
        try:
            for future in progress.track(as_completed(futures), len(futures), description="runs"):
                if future.cancelled():
                    continue
                if error := future.exception():
                    failure = failure or error
                    for other in futures:
                        other.cancel()
                else:
                    append(path, future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failure:
        raise failure
