"""Names of kernels in pictures."""

from keras_mhe._printable import printable


def shortened(name: str, length: int) -> str:
    """The end of a name that is too long. Kernels of one block differ in the end of their names.

    Control and format characters are escaped: a picture cannot show them.
    """
    name = printable(name)
    return name if len(name) <= length else "…" + name[1 - length :]
