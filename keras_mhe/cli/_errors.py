"""Errors of files, as one sentence."""


class ModelFileError(Exception):
    """The reason why a file gives no model, in one sentence."""


def sentence(error: BaseException) -> str:
    """The cause of an error as one line that ends with a period."""
    text = str(error).partition(" Full object config:")[0]
    # Keras names first what failed. The reason follows these words.
    for words in ("Exception encountered: ", "Error when deserializing"):
        text = text.rpartition(words)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].endswith((":", ":.")):
        del lines[0]
    line = lines[0].rstrip(".: ") if lines else ""
    if isinstance(error, KeyError):
        line = f"{line} is missing"
    return (line[:300] + "…" if len(line) > 300 else line or type(error).__name__) + "."
