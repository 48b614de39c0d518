"""Tables as text: as wide as the terminal, and with whole names."""

import pytest
from rich.cells import cell_len

from keras_mhe._text_tables import format_table, names_by_reason

pytestmark = pytest.mark.once

LONG = "a_block_with_a_long_name_of_a_model_of_many_blocks_17_expand/recurrent_kernel"
COLUMNS = {
    "kernel": ["head", LONG, "模型" * 10, "a" * 120, "b\x1b[2J\nhead  4"],
    "": ["", "hs!", "fs", "", ""],
    "neurons": ["4", "12", "345", "6", "7"],
    "dimension": ["8", "8", "8", "8", "8"],
}


@pytest.mark.parametrize("width", [10, 30, 80, 200])
def test_no_line_is_wider_than_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = format_table("A title. " * 20, COLUMNS, ("neurons",), f"A note: {LONG}, {'b' * 120}.")
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_name_that_is_too_long_for_its_column_has_its_own_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = format_table("", COLUMNS, ("neurons", "dimension"), f"! {LONG}: 1 zero.").splitlines()
    i = lines.index(f" {LONG}")
    assert lines[i + 1].split() == ["hs!", "12", "8"]
    before = [cell_len(lines[i + 1].split("hs!")[0]), cell_len(lines[i + 2].split("fs")[0])]
    assert before[0] == before[1]
    assert lines[i - 1].split() == ["head", "4", "8"]
    assert lines[i - 1].endswith("8")
    # The names in notes are whole words too.
    assert f"{LONG}:" in " ".join(lines).split()


def test_only_a_name_wider_than_the_terminal_is_shortened_in_its_middle(monkeypatch):
    names = {"kernel": ["begin" + "a" * 120 + "end"], "neurons": ["4"]}
    monkeypatch.setenv("COLUMNS", "60")
    line = format_table("", names, ()).splitlines()[-2]
    assert line.startswith(" begina")
    assert line.endswith("aend")
    assert (len(line), line.count("…")) == (60, 1)
    monkeypatch.setenv("COLUMNS", "160")
    assert names["kernel"][0] in format_table("", names, ())


def test_rows_are_sentences_if_the_terminal_is_too_narrow_for_the_numbers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    names = {"kernel": ["head"], "": ["hs"], "neurons": ["4"], "dimension": ["8"]}
    assert format_table("", names, ()).split() == [
        "head:",
        "hs,",
        "neurons",
        "4,",
        "dimension",
        "8",
    ]


def test_table_without_rows_is_a_title_with_notes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert format_table("Title.", {"kernel": []}, (), "Note.") == "Title.\n\nNote."


def test_headings_of_several_lines_end_in_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = {"kernel": ["head"], "nearest\nmin°": ["12.5"], "angle\nmean°": ["6.0"]}
    lines = format_table("", columns, list(columns)[1:]).splitlines()
    assert [line.split() for line in lines[-4:-2]] == [
        ["nearest", "angle"],
        ["kernel", "min°", "mean°"],
    ]
    ends = [[line.index(word) + len(word) for word in line.split()[-2:]] for line in lines[-4:-2]]
    assert ends[0] == ends[1]
    assert lines[-1].split() == ["head", "12.5", "6.0"]


def test_many_names_of_one_reason_are_counted():
    few = names_by_reason([("a", "Left out"), ("b", "Left out")])
    assert few == ["Left out: a, b."]
    many = names_by_reason([(name, "Left out") for name in "abcdef"])
    assert many == ["Left out (6 in all): a, b, c, d and 2 more."]
