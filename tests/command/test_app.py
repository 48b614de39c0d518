"""The commands `demo` and `inspect`: output, files, exit status and errors."""

import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from helpers import normals
from keras import layers
from model_files import with_parts
from typer.testing import CliRunner

from keras_mhe import MHE, energy_report
from keras_mhe.cli import _files
from keras_mhe_command._app import app

pytestmark = pytest.mark.once


@pytest.mark.slow
def test_demo_trains_prints_a_table_and_saves_a_picture(tmp_path):
    # Rich would read the name of the folder as markup.
    folder = tmp_path / "new" / "[red]folder"
    options = ["--seeds", "1", "--epochs", "2", "--factor", "3", "--s", "0"]
    result = CliRunner().invoke(app, ["demo", *options, "--output", str(folder)])
    assert result.exit_code == 0, result.output
    assert "280 training images" in result.output
    for text in ("balanced accuracy", "3 rarest", "smallest angle", "energy (s=0)", "one pair"):
        assert text in result.output
    assert (folder / "sphere.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "sphere.png") in result.output


def test_help_lists_all_options():
    result = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in ("--seeds", "--factor", "--s ", "--epochs", "--output"):
        assert option in result.output


def test_call_without_arguments_lists_the_commands():
    assert "demo" in CliRunner().invoke(app, []).output


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "x", "--s", "-1"],
        ["demo", "--seeds", "0"],
        ["demo", "--factor", "-1"],
        ["demo", "--s", "x"],
        ["train"],
    ],
)
def test_invalid_arguments_exit_with_status_2_and_an_error(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Error" in result.output


@pytest.fixture
def saved_model(tmp_path):
    """A saved model with an orthogonal hidden layer and a random output layer."""
    keras.utils.set_random_seed(0)
    path = tmp_path / "model.keras"
    model = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(16, kernel_initializer="orthogonal", name="hidden"),
            layers.Dense(10, kernel_initializer="random_normal", name="head"),
        ]
    )
    model.save(path)
    return model, path


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_inspect_prints_the_report(saved_model):
    model, path = saved_model
    result = inspect(path)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == repr(energy_report(model)).strip()


def test_inspect_writes_html_png_and_json(saved_model, tmp_path):
    model, path = saved_model
    out = {kind: tmp_path / f"report.{kind}" for kind in ("html", "png", "json")}
    options = [text for kind, file in out.items() for text in (f"--{kind}", file)]
    result = inspect(path, "--s", 0, "--distance", "angular", "--half-space", *options)
    assert result.exit_code == 0, result.output
    report = energy_report(model, 0, distance="angular", half_space=True)
    assert json.loads(out["json"].read_text()) == report.to_dict()
    assert out["png"].read_bytes().startswith(b"\x89PNG")
    assert "Neurons of model.keras" in out["html"].read_text()
    assert result.stdout.endswith(f"\nWrote {out['json']}, {out['html']}, {out['png']}.\n")


def test_json_option_with_a_dash_writes_only_json_to_standard_output(saved_model):
    result = inspect(saved_model[1], "--json", "-", "--full-space")
    assert json.loads(result.stdout) == energy_report(saved_model[0], half_space=False).to_dict()


def test_kernels_are_measured_as_their_regularizers_say_unless_options_replace_it(tmp_path):
    regularizer = MHE(30.0, distance="gaussian", t=3.0)
    hidden = layers.Dense(16, kernel_regularizer=regularizer, name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, layers.Dense(4, name="head")])
    model.save(tmp_path / "model.keras")

    def row(*options):
        return json.loads(inspect(tmp_path / "model.keras", "--json", "-", *options).stdout)[
            "rows"
        ][0]

    names = ("regularizer", "half_space", "distance", "t", "s")
    assert [row()[name] for name in names] == ["MHE", False, "gaussian", 3.0, None]
    replaced = row("--distance", "gaussian", "--t", 5, "--half-space")
    assert [replaced[name] for name in names] == ["MHE", True, "gaussian", 5.0, None]
    assert [row("--s", 1)[name] for name in names] == ["MHE", False, "euclidean", None, 1.0]


def test_weights_option_loads_the_weights_of_another_file(saved_model, tmp_path):
    model, path = saved_model
    model.get_layer("head").kernel.assign(normals(16, 10))
    model.save_weights(tmp_path / "new.weights.h5")
    result = inspect(path, "--weights", tmp_path / "new.weights.h5", "--json", "-")
    assert json.loads(result.stdout) == energy_report(model).to_dict()


@pytest.fixture
def earlier_model(saved_model, tmp_path):
    """The saved model with other weights, saved beside it."""
    path = tmp_path / "before.keras"
    model = keras.models.clone_model(saved_model[0])
    model.set_weights([w + normals(*w.shape) for w in saved_model[0].get_weights()])
    model.save(path)
    return model, path


def test_against_option_compares_with_an_earlier_model(saved_model, earlier_model, tmp_path):
    drift = energy_report(saved_model[0], against=earlier_model[0])
    out = {kind: tmp_path / f"drift.{kind}" for kind in ("html", "png", "json")}
    options = [text for kind, file in out.items() for text in (f"--{kind}", file)]
    result = inspect(saved_model[1], "--against", earlier_model[1], *options)
    assert result.exit_code == 0, result.output
    written = f"Wrote {out['json']}, {out['html']}, {out['png']}."
    assert result.output.strip() == f"{repr(drift).strip()}\n\n{written}"
    assert json.loads(out["json"].read_text()) == drift.to_dict()
    assert out["png"].read_bytes().startswith(b"\x89PNG")
    assert "Neurons of model.keras, compared with before.keras" in out["html"].read_text()


def test_against_option_has_the_options_and_the_limit_of_the_model(saved_model, earlier_model):
    files = [saved_model[1], "--against", earlier_model[1]]
    result = inspect(*files, "--s", 0, "--full-space", "--json", "-")
    drift = energy_report(saved_model[0], 0, half_space=False, against=earlier_model[0])
    assert json.loads(result.stdout) == drift.to_dict()
    assert inspect(*files, "--fail-above", 3).exit_code == 0
    result = inspect(*files, "--fail-above", 0.2)
    assert result.exit_code == 1
    assert "above position 0.2, zero or not finite: head." in result.stderr


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_earlier_files_are_checked_like_the_model(saved_model, tmp_path):
    marker, unsafe = tmp_path / "ran", tmp_path / "unsafe.keras"
    name = str(marker)
    program = layers.Lambda(lambda x: (open(name, "w").close(), x)[1])  # noqa: PTH123
    keras.Sequential([keras.Input((32,)), program, layers.Dense(16, name="hidden")]).save(unsafe)
    marker.unlink(missing_ok=True)

    def enlarge(config):
        config["config"]["layers"][1]["config"]["units"] = 10**9

    large = with_parts(saved_model[1], enlarge).rename(tmp_path / "large.keras")
    names = with_name(saved_model[1], "a\x1b[2J").rename(tmp_path / "names.keras")
    for path, message in (
        (unsafe, "contains code (Lambda"),
        (large, "weights, but holds only"),
        (tmp_path / "nowhere.keras", "does not exist"),
    ):
        result = inspect(saved_model[1], "--against", path)
        assert result.exit_code == 2
        [line] = result.stderr.strip().splitlines()
        assert str(path) in line
        assert message in line
    assert not marker.exists()
    result = inspect(saved_model[1], "--against", names)
    assert result.exit_code == 0
    assert r"hidden was a\x1b[2J" in " ".join(result.stdout.split())
    assert "\x1b" not in result.output


@pytest.mark.parametrize(("position", "status"), [(3, 0), (0.2, 1)])
def test_fail_above_exits_with_status_1_if_a_position_is_higher(saved_model, position, status):
    result = inspect(saved_model[1], "--fail-above", position)
    assert result.exit_code == status
    assert ("above position 0.2, zero or not finite: head." in result.stderr) == (status == 1)


@pytest.mark.parametrize("value", [0, np.nan])
def test_fail_above_exits_with_status_1_for_zero_or_non_finite_neurons(saved_model, value):
    model, path = saved_model
    model.get_layer("hidden").kernel.assign(np.full((32, 16), value))
    model.save(path)
    assert inspect(path).exit_code == 0
    result = inspect(path, "--fail-above", 3)
    assert result.exit_code == 1
    assert "hidden" in result.stderr


def test_fail_above_names_kernels_without_a_position(saved_model):
    options = ["--s", 0, "--distance", "angular", "--fail-above", 3]
    assert "no position is known for head." in inspect(saved_model[1], *options).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["{folder}"],
        ["{folder}/nowhere.keras"],
        ["{folder}/empty.keras"],
        ["{folder}/text.keras"],
        ["{model}", "--weights", "{folder}/nowhere.h5"],
        ["{model}", "--html", "{folder}/no/such/folder.html"],
        ["{model}", "--json", "{folder}/no/such/folder.json"],
        ["{model}", "--png", "{folder}/no/such/folder.png"],
        ["{model}", "--html", "{model}"],
        ["{model}", "--against", "{folder}/old.keras", "--html", "{folder}/old.keras"],
        ["{model}", "--against", "{folder}/other.keras"],
        ["{model}", "--html", "{folder}/same", "--json", "{folder}/same"],
        ["{model}", "--fail-above", "nan"],
        ["{model}", "--s", "3000"],
    ],
)
def test_unusable_paths_and_options_exit_with_a_one_line_error(saved_model, tmp_path, arguments):
    (tmp_path / "empty.keras").touch()
    (tmp_path / "text.keras").write_text("not a model")
    keras.Sequential([keras.Input((3,)), layers.Dense(2, name="x")]).save(tmp_path / "other.keras")
    result = inspect(*[text.format(folder=tmp_path, model=saved_model[1]) for text in arguments])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("keras-mhe: ")
    # The model file is unchanged.
    assert inspect(saved_model[1]).exit_code == 0


def with_name(path, name):
    """A copy of a model file with another name of its first layer."""

    def change(config):
        config["config"]["layers"][1]["config"]["name"] = name

    return with_parts(path, change)


def test_names_of_layers_cannot_control_the_terminal(saved_model):
    path = with_name(saved_model[1], "a\x1b[2J\n head    full     10")
    result = inspect(path, "--s", 0, "--distance", "angular", "--fail-above", 0)
    assert result.exit_code == 1
    assert r"a\x1b[2J\x0a" in result.stdout
    assert r"not finite: a\x1b[2J\x0a head \x20\x20\x20full " in result.stderr
    assert "\x1b" not in result.output
    starts = [line.split()[:2] for line in result.stdout.splitlines()]
    assert starts.count(["head", "full"]) == 1


def test_names_in_errors_cannot_control_the_terminal(saved_model, tmp_path):
    def change(config):
        config["config"]["layers"][1]["class_name"] = "A\x1b[2J\nkeras-mhe: all is well."

    missing = tmp_path / "a\x1b[2J\n\udcff.keras"
    weights = with_name(saved_model[1], "\x1b[2J").rename(tmp_path / "\x1b.keras")
    model = with_parts(saved_model[1], change)
    for arguments in ([model], [missing], [weights, "--html", tmp_path / "\x1b" / "page.html"]):
        result = inspect(*arguments)
        assert result.exit_code == 2
        [line] = result.stderr.strip().splitlines()
        assert r"\x1b" in line
        assert "\x1b" not in line


def test_warnings_of_keras_cannot_control_the_terminal(saved_model, monkeypatch):
    def load(*paths):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("layer a\x1b[2J\nb is not built", stacklevel=1)
        return saved_model[0]

    monkeypatch.setattr(_files, "model_from_file", load)
    result = inspect(saved_model[1])
    assert result.stderr == r"keras-mhe: warning: layer a\x1b[2J b is not built" + "\n"


def test_model_without_kernels_exits_with_a_clear_error(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), layers.ReLU()]).save(path)
    result = inspect(path)
    assert result.exit_code == 2
    assert "no kernel to report" in result.stderr


@pytest.mark.slow
def test_damaged_file_exits_without_a_traceback(saved_model, tmp_path):
    content = saved_model[1].read_bytes()
    (tmp_path / "short.keras").write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-m", "keras_mhe", "inspect", str(tmp_path / "short.keras")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "keras-mhe: " in result.stderr.strip().splitlines()[-1]
