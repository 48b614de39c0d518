"""A report prints in 80 columns, converts to JSON and pandas, and summarizes all kernels."""

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


def test_summary_covers_all_kernels():
    report = energy_report(network())
    positions = [row.position for row in report.rows]
    assert report.summary["energy_position"] == pytest.approx(np.mean(positions))
    assert report.summary["worst_energy_position"] == max(positions)
    assert report.summary["smallest_angle"] == min(row.nearest_angle_min for row in report.rows)


def test_missing_lower_bound_gives_no_position_and_an_explanation():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])
    report = energy_report(model, 0, distance="angular", half_space=False)
    assert report.rows[0].position is None
    assert math.isnan(report.summary["energy_position"])
    assert "or no lower bound is known" in " ".join(repr(report).split())
    assert report.to_dict()["summary"]["energy_position"] is None


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
    assert row.split()[1:4] == ["hs!", "30", "2048"]
    assert len(row.split()) == 9
    assert name in "".join(line.split()[0] for line in lines if line.split() and line[1] != " ")
