"""What runs were and gave, as lines of JSON in one file that a kill cannot spoil."""

import json
from pathlib import Path
from typing import Any

Value = str | int | float
Config = dict[str, Value]
# "config" and "figures", numbers by name; "details", for pictures; "seconds", "date", "machine".
Record = dict[str, Any]


def identity(config: Config) -> str:
    """The same for two configs that say the same."""
    return json.dumps(config, sort_keys=True)


def read(path: Path) -> dict[str, Record]:
    """All complete records of a file, by the identity of their config; none if there is no file."""
    records: dict[str, Record] = {}
    text = path.read_text("utf-8") if path.exists() else ""
    # What follows the last end of line was cut off while it was written.
    lines = text[: text.rfind("\n") + 1].splitlines()
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        key = identity(record["config"])
        if records.setdefault(key, record)["figures"] != record["figures"]:
            raise ValueError(
                f"{path.name} holds two different results of one config: take one of them out. "
                f"Received: line {number}, {key}"
            )
    return records


def mend(path: Path) -> None:
    """Takes away what a kill may have left of a record."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def append(path: Path, record: Record) -> None:
    """Adds a record, in one piece, so that two programs may add to one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(json.dumps(record).encode() + b"\n")
