"""A report prints in 80 columns, converts to JSON and pandas, and summarizes all kernels."""

import csv
import io
import json
import math

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import energy_report

pytestmark = pytest.mark.once


def network():
    return keras.Sequential(
        [
            keras.Input((18,)),
            layers.Dense(6, name="first"),
            layers.Dense(6, name="second"),
            layers.Dense(5, name="head"),
        ]
    )


def test_report_converts_to_json_and_pandas(tmp_path):
    report = energy_report(network())
    path = tmp_path / "report.json"
    text = report.to_json(path)
    assert json.loads(path.read_text()) == json.loads(text) == report.to_dict()
    frame = report.to_pandas()
    assert list(frame["neurons"]) == [6, 6, 5]
    assert frame["position"].tolist() == [row.position for row in report.rows]


# An escape of the terminal, a second line, a reversed text, markup and an emoji code of Rich.
_NAMES = ("a\x1b[31mb", "a\n! head: 5 zero.", "\u202ea b", "[red] :x:", "模型 👩\u200d💻")


def test_names_from_a_file_are_escaped_in_the_table_and_raw_in_the_data(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    hidden = [layers.Dense(4, name=name) for name in _NAMES]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(5, name="head")])
    for layer in hidden:
        # Each name is in the table, and in a remark below it.
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    report = energy_report(model)
    lines = repr(report).splitlines()
    for shown in (r"a\x1b[31mb", r"a\x0a! head: 5 zero.", r"\u202ea b", *_NAMES[3:]):
        assert len([line for line in lines if line.lstrip().startswith(shown)]) == 1
        assert f"! {shown}: 4 zero." in [line.rstrip() for line in lines]
    assert "! head: 5 zero." not in [line.strip() for line in lines]
    assert [row.layer for row in report.rows] == [*_NAMES, "head"]
    assert [row["name"] for row in json.loads(report.to_json())["rows"]] == [*_NAMES, "head"]
    assert report.to_json().isascii()
    table = csv.DictReader(io.StringIO(report.to_pandas().to_csv(), newline=""))
    assert [row["name"] for row in table] == [*_NAMES, "head"]


def test_remarks_of_several_lines_are_indented(monkeypatch):
    """No name looks like the first line of a remark."""
    monkeypatch.setenv("COLUMNS", "80")
    name = " ".join(["layer"] * 12 + ["! head: 5 zero."] * 8)
    zero = layers.Dense(4, name=name, kernel_initializer="zeros")
    lines = repr(energy_report(keras.Sequential([keras.Input((8,)), zero]))).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("! layer"))
    assert " ".join(" ".join(lines[start:]).split()) == f"! {name}: 4 zero."
    assert len(lines) > start + 1
    assert all(line.startswith("  ") for line in lines[start + 1 :])
    assert max(map(len, lines)) <= 80


def test_summary_covers_all_kernels():
    report = energy_report(network())
    positions = [row.position for row in report.rows]
    assert report.summary["position_mean"] == pytest.approx(np.mean(positions))
    assert report.summary["position_max"] == max(positions)
    assert report.summary["nearest_angle_min"] == min(row.nearest_angle_min for row in report.rows)


def test_missing_lower_bound_gives_no_position_and_an_explanation():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])
    report = energy_report(model, 0, distance="angular", half_space=False)
    assert report.rows[0].position is None
    assert math.isnan(report.summary["position_mean"])
    assert "or no lower bound is known" in " ".join(repr(report).split())
    assert report.to_dict()["summary"]["position_mean"] is None


def test_printed_table_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "a_block_with_a_long_name_of_a_model_of_many_blocks_17_expand"
    inputs = keras.Input((64,))
    x = layers.Dense(2048, name=name)(inputs)
    x = layers.Dense(30, name="zero")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    value = normals(2048, 30)
    value[:, 4] = 0
    model.get_layer("zero").kernel.assign(value)
    text = repr(energy_report(model))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    # Only the longest name is wrapped. Each number stays on one line, in its column.
    [row] = [line for line in lines if line.lstrip().startswith("zero")]
    assert row.split()[1:5] == ["half!", "30", "*", "2048"]
    assert len(row.split()) == 10
    assert name in "".join(line.split()[0] for line in lines if line.split() and line[1] != " ")
