"""Short names of kernels."""


def shortened(name: str, length: int) -> str:
    """The end of a name that is too long. Kernels of one block differ in the end of their names."""
    return name if len(name) <= length else "…" + name[1 - length :]
