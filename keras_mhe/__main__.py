"""Entry point of the `keras-mhe` command and of `python -m keras_mhe`."""

import sys
from importlib.util import find_spec

# The packages that each command imports.
_REQUIRED = {
    "demo": ("matplotlib", "rich", "sklearn", "typer"),
    "inspect": ("jinja2", "matplotlib", "rich", "typer"),
}


def main() -> None:
    """Runs the command, or exits with the name of the extra that has to be installed."""
    extra = "demo" if sys.argv[1:2] == ["demo"] else "inspect"
    missing = [name for name in _REQUIRED[extra] if find_spec(name) is None]
    if missing:
        sys.exit(
            f"keras-mhe: {', '.join(missing)} not found. "
            f'Install the requirements of this command with: pip install "keras-mhe[{extra}]"'
        )
    from keras_mhe.cli._app import app

    app(prog_name="keras-mhe")


if __name__ == "__main__":
    main()
