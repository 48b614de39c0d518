"""Names of kernels where there is little room."""


def shortened(name: str, most: int) -> str:
    """The end of a name, which tells kernels of a block apart, where all of it is too long."""
    return name if len(name) <= most else "…" + name[1 - most :]
