"""How to install an extra, in the words of all error messages."""


# Until the package is published, this works only in a checkout. A release changes both functions,
# and the pages: a test finds every page that says something else.
def install_command(extras: str) -> str:
    """The command that installs the package with extras, separated by commas."""
    return f'pip install ".[{extras}]"'


def install_advice(extra: str) -> str:
    """What to do if the packages of an extra are missing, as a sentence."""
    return f"In a checkout of keras_mhe, run: {install_command(extra)}"
