"""Runs what is most wanted on a GPU and not done yet, within a limit of time."""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
from rich.console import Console
from rich.table import Table

from experiments import calibration, gpu_list
from experiments.data import load_images, sources_by_name
from experiments.durations import CompileClock, expected_seconds, speed
from experiments.experiment import InputError
from experiments.gpu_list import Group, Setting
from experiments.records import (
    Config,
    Record,
    append,
    card,
    read,
    record_key,
    remove_incomplete_line,
)
from experiments.runner import run_config
from workloads.machine import describe_machine


class _Job(NamedTuple):
    """A run, with its file of results and a text that names it."""

    file: str
    config: Config
    text: str


class _Queue:
    """The runs of the list on one card: which are recorded, and how long the others take."""

    def __init__(self, data: str, out: Path, card: str, quick: bool) -> None:
        self.data, self.out, self.card, self.quick = data, out, card, quick
        self._recorded: dict[str, dict[str, Record]] = {}

    def _records(self, file: str) -> dict[str, Record]:
        """Returns the runs on this card by key."""
        if file not in self._recorded:
            found = read(self.out / file)
            self._recorded[file] = {k: v for k, v in found.items() if card(v) == self.card}
        return self._recorded[file]

    def add(self, job: _Job, record: Record) -> None:
        append(self.out / job.file, record)
        self._records(job.file)[record_key(job.config, self.card)] = record

    def setting(self) -> Setting | None:
        trials, runs = (self._records(file).values() for file in (calibration.FILE, "cnn9.jsonl"))
        return calibration.setting(list(trials), list(runs), self.data, self.quick)

    def jobs(self, group: Group, setting: Setting) -> list[_Job]:
        parts = "".join(f", {name} {value}" for name, value in group.parts.items())
        return [
            _Job(
                f"{group.experiment}.jsonl",
                config,
                f"{group.experiment}{parts}, {config['variant']}, seed {config['seed']}",
            )
            for config in gpu_list.configs(group, self.data, setting, self.quick)
        ]

    def missing(self) -> list[_Job]:
        """Returns the trials and then the runs that are not recorded, most wanted first."""
        jobs = [
            _Job(
                calibration.FILE,
                trial,
                "trial of rate {rate}, warm-up of {warmup} steps, {steps} steps".format(**trial),
            )
            for trial in calibration.trials(self.data, self.quick)
        ]
        setting = self.setting()
        for group in gpu_list.groups(self.quick):
            if setting is not None:
                jobs += self.jobs(group, setting)
            elif group.experiment == "crowding":
                # These runs do not depend on the setting.
                jobs += self.jobs(group, Setting(0.0, 0, 0))
        return self.unrecorded(jobs)

    def unrecorded(self, jobs: list[_Job]) -> list[_Job]:
        return [
            job for job in jobs if record_key(job.config, self.card) not in self._records(job.file)
        ]

    def expected_seconds(self, job: _Job) -> float:
        measured = speed(self._records(calibration.FILE).values())
        return expected_seconds(job.config, self._records(job.file).values(), measured)


@contextlib.contextmanager
def _programs_kept() -> Iterator[None]:
    """Makes JAX keep compiled programs in a folder meanwhile, and reuse them in equal runs."""
    import jax

    option = "jax_compilation_cache_dir"
    before = getattr(jax.config, option)
    with tempfile.TemporaryDirectory(prefix="keras-mhe-programs-") as folder:
        jax.config.update(option, folder)
        try:
            yield
        finally:
            jax.config.update(option, before)


def run(minutes: float, data: str, out: Path, quick: bool, console: Console, began: float) -> bool:
    """Runs all that is missing and fits into the time, and returns whether no run failed.

    Each run is recorded when it ends. A run that fails is reported, and tried again the next time.

    Args:
        minutes: no run starts that would end later than this after `began`.
        data: images, as for `load_images`.
        out: folder of the results, which are continued.
        quick: whether to run tiny trainings, as a check of the programs, on a CPU too.
        console: where progress is shown.
        began: time of `time.monotonic()` when the program began.
    """
    machine = describe_machine()
    if machine["backend"] != "jax":
        raise InputError(f"The runs for a GPU need JAX. Received: {keras.backend.backend()}")
    if not (machine["accelerator"] or quick):
        raise InputError("The runs need a GPU. --quick checks the programs on a CPU. Received: CPU")
    sources = sources_by_name([data])
    # Loaded once and before the first run, whose seconds are an estimate for the next ones.
    load_images(data)
    queue = _Queue(next(iter(sources)), out, machine["accelerator"] or "CPU", quick)
    for path in out.glob("*.jsonl"):
        remove_incomplete_line(path)
    clock = CompileClock()
    loop_began, setting = time.monotonic(), queue.setting()
    console.print(_setting_text(setting))
    done: list[tuple[str, float, float]] = []
    failed: list[str] = []

    def next_job() -> _Job | None:
        end = began + 60 * minutes
        for job in queue.missing():
            if job.text not in failed and time.monotonic() + queue.expected_seconds(job) <= end:
                return job
        return None

    def do(job: _Job) -> None:
        start, compiled = time.monotonic(), clock.seconds
        try:
            record = run_config(job.config, sources)
        except Exception as error:  # the next run may work
            failed.append(job.text)
            outcome = f"{type(error).__name__}: {str(error)[:500]}"
        else:
            record["compile_seconds"] = round(clock.seconds - compiled, 1)
            queue.add(job, record)
            outcome = ", ".join(f"{name} {value}" for name, value in record["figures"].items())
        seconds = time.monotonic() - start
        done.append((job.text, seconds, clock.seconds - compiled))
        # Brackets in a message are not markup.
        console.print(f"{job.text}: {seconds:.1f} s; {outcome}", soft_wrap=True, markup=False)

    with _programs_kept():
        while job := next_job():
            do(job)
            if setting != (setting := queue.setting()):
                console.print(_setting_text(setting))
    _print_times(console, done, began, loop_began)
    _print_next(console, queue, failed)
    return not failed


def _setting_text(setting: Setting | None) -> str:
    if setting is None:
        return "The rate and the number of steps are not chosen yet."
    return (
        f"Rate {setting.rate}, warm-up of {setting.warmup} steps, {setting.steps} steps, where the "
        "list has no others."
    )


def _print_times(
    console: Console, done: list[tuple[str, float, float]], began: float, loop_began: float
) -> None:
    """Prints the seconds of each run, and how the whole time was spent."""
    table = Table("run", "seconds", "of them compiling")
    for text, seconds, compiling in done:
        table.add_row(text, f"{seconds:.1f}", f"{compiling:.1f}")
    console.print(table)
    total, start = time.monotonic() - began, loop_began - began
    runs, compiling = (sum(each[k] for each in done) for k in (1, 2))
    console.print(
        f"{len(done)} runs. Minutes: start {start / 60:.2f}, compiling {compiling / 60:.2f}, "
        f"runs {(runs - compiling) / 60:.2f}, rest {(total - start - runs) / 60:.2f}, "
        f"in all {total / 60:.2f}."
    )


def _print_next(console: Console, queue: _Queue, failed: list[str]) -> None:
    missing = queue.missing()
    for text in failed:
        console.print(f"Failed, and tried again next time: {text}", soft_wrap=True)
    for job in missing[:3]:
        console.print(f"Next: {job.text}, about {queue.expected_seconds(job):.0f} s")
    console.print(f"{queue.out}: {len(missing)} runs are missing for {queue.card}.")


def list_runs(data: str, out: Path, console: Console) -> None:
    """Prints which runs of the list are recorded for each card, and how long the others take."""
    [name] = sources_by_name([data])
    cards = {card(record) for record in read(out / calibration.FILE).values()}
    for each in sorted(cards) or ["no GPU yet"]:
        queue = _Queue(name, out, each, quick=False)
        setting = queue.setting()
        console.print(f"{each}, {name}. {_setting_text(setting)}")
        console.print(_list_table(queue, setting or Setting(0.1, 0, 42_500)))


def _list_table(queue: _Queue, setting: Setting) -> Table:
    table = Table("question", "runs", "variant", "done", "minutes missing")
    previous = ""
    for group in gpu_list.groups(queue.quick):
        jobs = queue.jobs(group, setting)
        parts = ", ".join(f"{name} {value}" for name, value in group.parts.items())
        for variant, own in itertools.groupby(jobs, key=lambda job: str(job.config["variant"])):
            wanted = list(own)
            missing = queue.unrecorded(wanted)
            minutes = sum(map(queue.expected_seconds, missing)) / 60
            table.add_row(
                group.question if group.question != previous else "",
                f"{group.experiment}{parts and ', '}{parts}",
                variant,
                f"{len(wanted) - len(missing)} of {len(wanted)}",
                f"{minutes:.1f}" if missing else "",
            )
            previous = group.question
    return table
