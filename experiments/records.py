"""Reads and writes the records of runs: one JSON object per line of a file.

A file stays readable when a program is killed while it writes.
"""

import json
from pathlib import Path
from typing import Any

Value = str | int | float
Config = dict[str, Value]
# Keys: "config"; "figures", the metrics by name; "details", data for plots; "seconds" and
# "compile_seconds", the part of them in XLA's compiler, if it is known; "date", "machine".
Record = dict[str, Any]

# Files keep the spelling of the time when they were written. Programs use the new one.
_RENAMED_VALUES: dict[tuple[str, Value], Value] = {("head", "normalised"): "normalized"}
# Parts of configs that older records lack, by experiment, with the values of those runs.
_ADDED_PARTS: dict[str, Config] = {
    "cnn9": {"warmup": 0, "trainer": "fit", "precision": "float32", "loss": "cross-entropy"},
    "imbalanced_cnn9": {"loss": "cross-entropy"},
    "imbalance": {"optimizer": "sgd", "rate": 0.02},
}


def config_key(config: Config) -> str:
    """Returns a key that is equal for equal configs, whatever the order of their entries."""
    return json.dumps(config, sort_keys=True)


def card(record: Record) -> str:
    """Returns the name of the accelerator of a run, or `"CPU"`."""
    return record["machine"].get("accelerator") or "CPU"


def record_key(config: Config, card: str) -> str:
    """Returns a key of a run: equal configs on two cards are two runs."""
    return f"{card}: {config_key(config)}"


def read(path: Path) -> dict[str, Record]:
    """Returns all complete records of a file by `record_key`, or none if there is no file."""
    records: dict[str, Record] = {}
    text = path.read_text("utf-8") if path.exists() else ""
    # A last line without an end is incomplete.
    lines = text[: text.rfind("\n") + 1].splitlines()
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        config = {
            name: _RENAMED_VALUES.get((name, value), value)
            for name, value in record["config"].items()
        }
        added = _ADDED_PARTS.get(str(config.get("experiment")), {})
        record["config"] = config | {k: v for k, v in added.items() if k not in config}
        key = record_key(record["config"], card(record))
        if records.setdefault(key, record)["figures"] != record["figures"]:
            raise ValueError(
                f"{path.name} holds two different results for one config. Delete one of them. "
                f"Received: line {number}, {key}"
            )
    return records


def remove_incomplete_line(path: Path) -> None:
    """Removes a last line that was not written to its end."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def append(path: Path, record: Record) -> None:
    """Appends a record in one write, so that two programs can append to the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(json.dumps(record).encode() + b"\n")
