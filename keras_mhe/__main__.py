"""Entry of the `keras-mhe` command and of `python -m keras_mhe`."""

import sys
from importlib.util import find_spec

_EXTRA = ("matplotlib", "rich", "sklearn", "typer")


def main() -> None:
    """Runs the command line, or says in one sentence what to install for it."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        sys.exit(
            f"keras-mhe: {', '.join(missing)} not found. "
            'Install what this command needs with: pip install "keras-mhe[demo]"'
        )
    from keras_mhe.cli import app

    app(prog_name="keras-mhe")


if __name__ == "__main__":
    main()
