"""A report of changes prints in 100 columns and converts to JSON and pandas."""

import json

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers

from keras_mhe import energy_report

pytestmark = pytest.mark.once

_LONG = "a_block_with_a_long_name_of_a_model_of_many_blocks_17_expand"


@pytest.fixture(scope="module")
def drift():
    """Three kernels; neurons of the second one are faulty before or after."""

    def network():
        hidden = [layers.Dense(30, name=name) for name in ("hidden", _LONG)]
        return keras.Sequential([keras.Input((18,)), *hidden, layers.Dense(5, name="head")])

    before, after = network(), network()
    for model, fault in ((before, 0), (after, np.nan)):
        value = normals(30, 30, seed=model is after)
        value[:, 1 + (model is after)] = fault
        model.get_layer(_LONG).kernel.assign(value)
    return energy_report(after, against=before)


def test_printed_table_fits_100_columns(drift, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = repr(drift)
    assert max(map(len, text.splitlines())) <= 100
    [line] = [line for line in text.splitlines() if line.lstrip().startswith("hidden")]
    hidden = drift.changes[0]
    assert line.split() == [
        "hidden", "half", "30",
        f"{hidden.before.nearest_angle_min:.1f}", "→", f"{hidden.after.nearest_angle_min:.1f}",
        f"{hidden.before.position:.2f}", "→", f"{hidden.after.position:.2f}",
        f"{hidden.turned_mean:.1f}", f"{hidden.turned_max:.1f}",
    ]  # fmt: skip
    words = " ".join(text.split())
    assert f"! {_LONG} before: 1 zero." in words
    assert f"! {_LONG}: 1 not finite." in words


def test_numbers_convert_to_json_and_pandas(drift, tmp_path):
    text = drift.to_json(tmp_path / "drift.json")
    content = json.loads(text)
    assert content == drift.to_dict() == json.loads((tmp_path / "drift.json").read_text())
    hidden, faulty, head = content["changes"]
    assert hidden["energy_change"] == hidden["energy_after"] - hidden["energy_before"]
    assert hidden["turned_mean"] == np.mean(drift.changes[0].turns)
    assert (faulty["energy_after"], faulty["energy_change"], faulty["undirected"]) == (
        None,
        None,
        2,
    )
    assert (faulty["zero_before"], faulty["non_finite_after"]) == (1, 1)
    assert head["name"] == head["name_before"] == "head"
    frame = drift.to_pandas()
    assert frame["turned_max"].tolist() == [each.turned_max for each in drift.changes]


def test_summary_has_the_numbers_of_the_report_and_of_the_changes(drift):
    summary = drift.summary
    positions = [row.position for row in drift.rows if row.position is not None]
    assert summary["position_mean"] == pytest.approx(np.mean(positions))
    moves = [drift.changes[i].change("position") for i in (0, 2)]
    assert summary["position_change"] == pytest.approx(np.mean(moves))
    assert summary["turned_mean"] == np.mean([each.turned_mean for each in drift.changes])
    assert summary["turned_max"] == max(each.turned_max for each in drift.changes)


def test_change_of_an_unknown_number_raises_a_clear_error(drift):
    with pytest.raises(ValueError, match="Received: value='speed'"):
        drift.changes[0].change("speed")
