"""Entry of the `keras-mhe` command and of `python -m keras_mhe`."""

import sys
from importlib.util import find_spec

_NEEDS = {
    "demo": ("matplotlib", "rich", "sklearn", "typer"),
    "inspect": ("jinja2", "matplotlib", "rich", "typer"),
}


def main() -> None:
    """Runs the command line, or says in one sentence what to install for it."""
    extra = "demo" if sys.argv[1:2] == ["demo"] else "inspect"
    missing = [name for name in _NEEDS[extra] if find_spec(name) is None]
    if missing:
        sys.exit(
            f"keras-mhe: {', '.join(missing)} not found. "
            f'Install what this command needs with: pip install "keras-mhe[{extra}]"'
        )
    from keras_mhe.cli import app

    app(prog_name="keras-mhe")


if __name__ == "__main__":
    main()
