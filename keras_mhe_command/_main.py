"""The entry point of the command; its errors name missing packages."""

import sys
from importlib.util import find_spec

from keras_mhe_command._install import install_advice

# The packages that each command imports.
_REQUIRED = {
    "demo": ("matplotlib", "rich", "sklearn", "typer"),
    "inspect": ("jinja2", "matplotlib", "rich", "typer"),
}
# Backends of Keras, which are also names of extras.
_BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    """Runs the command, or exits with the name of the extra that has to be installed."""
    extra = "demo" if sys.argv[1:2] == ["demo"] else "inspect"
    missing = [name for name in _REQUIRED[extra] if find_spec(name) is None]
    if missing:
        sys.exit(f"keras-mhe: {', '.join(missing)} not found. {install_advice(extra)}")
    from keras_mhe_command._app import app

    try:
        app(prog_name="keras-mhe")
    except ModuleNotFoundError as error:
        if error.name not in _BACKENDS:
            raise
        sys.exit(
            f"keras-mhe: the backend {error.name} is not installed. Set KERAS_BACKEND to another "
            f"one, or install it. {install_advice(error.name)}"
        )
