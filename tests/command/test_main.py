"""The entry point: what needs no Keras is quick, missing packages are named, no log is shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_mhe_command import _main, main
from keras_mhe_command._app import app
from keras_mhe_command._install import install_advice

COMMAND = "from keras_mhe_command import main; main()"
MODEL = Path(__file__).parents[1] / "data" / "saved_models" / "wrapped.keras"


@pytest.mark.once
def test_help_and_wrong_options_import_neither_keras_nor_a_backend():
    program = (
        "import json, sys\n"
        "from keras_mhe_command import main\n"
        "for arguments in json.loads(sys.argv.pop()):\n"
        "    sys.argv[1:] = arguments\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit:\n"
        "        pass\n"
        "slow = {'keras', 'keras_mhe', 'numpy', 'matplotlib', 'tensorflow', 'jax', 'torch'}\n"
        "print(json.dumps(sorted(slow & set(sys.modules))))"
    )
    calls = [
        [],
        ["--help"],
        ["demo", "--help"],
        ["inspect", "--help"],
        ["inspect", "x", "--s", "x"],
    ]
    command = [sys.executable, "-c", program, json.dumps(calls)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == []
    # Each call printed what was asked for.
    assert all(name in result.stdout for name in ("--seeds", "--against"))
    assert "Invalid value for '--s'" in result.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("demo", "sklearn", "demo"), ("inspect", "jinja2", "inspect"), ("--help", "typer", "inspect")],
)
def test_missing_packages_raise_an_error_that_names_the_extra(monkeypatch, command, module, extra):
    monkeypatch.setattr(sys, "argv", ["keras-mhe", command])
    monkeypatch.setattr(_main, "find_spec", lambda name: None if name == module else name)
    with pytest.raises(SystemExit) as raised:
        main()
    assert str(raised.value) == f"keras-mhe: {module} not found. {install_advice(extra)}"


@pytest.mark.once
def test_a_missing_backend_raises_an_error_that_names_its_extra(monkeypatch):
    def run(backend):
        def fail(**options):
            raise ModuleNotFoundError(name=backend)

        monkeypatch.setattr("keras_mhe_command._app.app", fail)
        main()

    with pytest.raises(SystemExit) as raised:
        run("torch")
    assert "the backend torch is not installed" in str(raised.value)
    assert str(raised.value).endswith(install_advice("torch"))
    # Any other module is a mistake of the package.
    with pytest.raises(ModuleNotFoundError):
        run("keras_mhe.no_such_module")


@pytest.mark.once
def test_python_can_run_the_package_as_the_command():
    from keras_mhe import __main__

    assert __main__.main is main
    assert callable(app)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["inspect", str(MODEL)], ["demo", "--seeds", "1", "--epochs", "1"]],
    ids=["inspect", "demo"],
)
def test_commands_print_no_log_of_the_backend(arguments, tmp_path):
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend()}
    del environment["TF_CPP_MIN_LOG_LEVEL"]
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert result.returncode == 0
    assert result.stdout
    assert result.stderr == ""
