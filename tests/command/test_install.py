"""Everything that tells users how to install extras gives one command, the one that works."""

import re
import runpy
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import keras_mhe
from keras_mhe import plots
from keras_mhe_command import _install
from keras_mhe_command._install import install_advice, install_command

pytestmark = pytest.mark.once

package = Path(keras_mhe.__file__).parent
root = Path(__file__).parents[2]
PAGES = [root / "README.md", root / "experiments" / "README.md", *(root / "docs").rglob("*.md")]
MODULES = [*package.rglob("*.py"), *Path(_install.__file__).parent.glob("*.py")]
# Developers install these from a checkout, also after a release.
FOR_DEVELOPERS = {"dev", "docs", "test"}


def commands_in(path):
    """The commands in a file that install this package, with their extras."""
    for command in re.findall(r"pip install [^`&\n]+", path.read_text("utf-8")):
        extras = re.search(r"\[([\w,-]+)\]", command)
        if extras or "mhe" in command:
            yield command.strip(), extras and extras[1]


def test_pages_and_messages_give_the_command_of_the_package():
    found = {path.name: list(commands_in(path)) for path in PAGES + MODULES if path.exists()}
    wrong = [
        (name, command)
        for name, commands in found.items()
        for command, extras in commands
        if not FOR_DEVELOPERS.issuperset([extras]) and command != install_command(extras)
    ]
    assert wrong == []
    known = set(metadata("keras-mhe").get_all("Provides-Extra"))
    named = {e for commands in found.values() for _, extras in commands for e in extras.split(",")}
    assert named <= known
    # The search finds what it should; a wheel is tested without README.md.
    assert {"tensorflow", "demo", "inspect", "monitor"} <= named or not PAGES[0].exists()


def test_missing_matplotlib_raises_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib\. ") as raised:
        runpy.run_path(plots.__file__)
    assert str(raised.value).endswith(install_advice("plots"))
