"""The command line, as a user types it."""

import pytest
from typer.testing import CliRunner

from keras_mhe import __main__
from keras_mhe.cli import app


def test_demo_trains_prints_and_draws(tmp_path):
    folder = tmp_path / "new" / "folder"
    options = ["--seeds", "1", "--epochs", "2", "--factor", "3", "--s", "0"]
    result = CliRunner().invoke(app, ["demo", *options, "--output", str(folder)])
    assert result.exit_code == 0, result.output
    assert "280 training images" in result.output
    for words in ("balanced accuracy", "3 rarest", "smallest angle", "energy (s=0)", "one seed"):
        assert words in result.output
    assert (folder / "sphere.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "sphere.png") in result.output


def test_help_names_every_option():
    result = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("--seeds", "--factor", "--s ", "--epochs", "--output"):
        assert option in result.output


def test_without_arguments_the_commands_are_listed():
    assert "demo" in CliRunner().invoke(app, []).output


@pytest.mark.parametrize(
    "arguments",
    [["demo", "--seeds", "0"], ["demo", "--factor", "-1"], ["demo", "--s", "x"], ["train"]],
)
def test_bad_arguments_end_in_a_sentence(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Error" in result.output


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(__main__, "find_spec", lambda name: None if name == "sklearn" else name)
    with pytest.raises(SystemExit) as raised:
        __main__.main()
    assert "sklearn" in str(raised.value)
    assert 'pip install "keras-mhe[demo]"' in str(raised.value)
