"""Tables as text."""

import io
from collections.abc import Sequence
from typing import Any

from keras_mhe._printable import printable


def short_name(layer: str, kernel: str) -> str:
    """The name of a layer, with that of its weight unless it is `kernel` or `embeddings`."""
    name = f"{layer}/{kernel}".lstrip("/")
    return name.removesuffix("/kernel").removesuffix("/embeddings")


def names_by_reason(reasons: Sequence[tuple[str, str]]) -> list[str]:
    """One sentence for each reason, with the names of at most four kernels.

    Args:
        reasons: pairs of a name and a reason.
    """
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons:
        grouped.setdefault(reason, []).append(name)
    sentences = []
    for reason, names in grouped.items():
        listed, others = ", ".join(names[:4]), len(names[4:])
        if others:
            sentences.append(f"{reason} ({len(names)} in all): {listed} and {others} more.")
        else:
            sentences.append(f"{reason}: {listed}.")
    return sentences


def _size(text: str) -> int:
    """The number of columns of a terminal that a text takes: two for a Chinese character."""
    import rich.cells

    return rich.cells.cell_len(text)


def _shortened(text: str, width: int) -> str:
    """A text without its middle if it is wider than `width`."""
    if _size(text) <= width:
        return text
    start, end = text[:width], text[-width:]
    while start and _size(start) + 1 + _size(end) > width:
        if _size(start) > _size(end):
            start = start[:-1]
        else:
            end = end[1:]
    return f"{start}…{end}"


def _wrapped(text: str, console: Any, indent: str = "  ") -> list[str]:
    """The lines of a text. No word is broken; those that are wider than a line are shortened.

    The lines of a note after its first are indented, so that no name, after many other words, looks
    like another note.
    """
    import rich.text

    width = max(console.width - len(indent), 1)
    words = " ".join(_shortened(word, width) for word in text.split(" "))
    first, *others = rich.text.Text(words).wrap(console, width)
    return [first.plain.rstrip(), *(indent + line.plain.rstrip() for line in others)]


def _table_lines(columns: dict[str, list[str]], numbers: Sequence[str], console: Any) -> list[str]:
    """The lines of a table. A name that is too long for the first column has its own line."""
    first, *others = columns
    headings = {name: name.split("\n") for name in columns}
    sizes = {name: max(map(_size, headings[name] + cells)) for name, cells in columns.items()}
    room = console.width - 1 - sum(sizes[name] + 2 for name in others)
    rows = list(zip(*columns.values(), strict=True))
    if room < _size(first):
        # The terminal is too narrow for a table.
        texts = (
            f"{name}: " + ", ".join(f"{title} {cell}".strip() for title, cell in pairs if cell)
            for name, *cells in rows
            for pairs in [zip((" ".join(headings[other]) for other in others), cells, strict=True)]
        )
        return [line for text in texts for line in _wrapped(text, console)]
    sizes[first] = max(size for size in map(_size, [first, *columns[first]]) if size <= room)

    def line(cells: Sequence[str]) -> str:
        padded = []
        for name, cell in zip(columns, cells, strict=True):
            space = " " * (sizes[name] - _size(cell))
            padded.append(space + cell if name in numbers else cell + space)
        return f" {'  '.join(padded)}".rstrip()

    height = max(map(len, headings.values()))
    raised = [[""] * (height - len(parts)) + parts for parts in headings.values()]
    lines = [line(parts) for parts in zip(*raised, strict=True)]
    lines.append(" " + "─" * (sum(sizes.values()) + 2 * len(others)))
    for name, *cells in rows:
        if _size(name) > sizes[first]:
            lines.append(" " + _shortened(name, console.width - 1))
            name = ""
        lines.append(line([name, *cells]))
    return lines


def format_table(
    title: str, columns: dict[str, list[str]], numbers: Sequence[str], *notes: str
) -> str:
    """A title and a table, as wide as the terminal, or 80 columns without one.

    Control and format characters in names are escaped. A name is never broken: it is shortened in
    the middle if it is wider than the terminal.

    Args:
        title: a few sentences.
        columns: the cells of each column by its name, with the names of the rows first. Columns
            with only empty cells are omitted. A name may have several lines.
        numbers: names of the columns that are aligned to the right.
        notes: sentences below the table.
    """
    # A dependency of Keras, which uses it for its summaries.
    import rich.console

    console = rich.console.Console(file=io.StringIO(), force_jupyter=False, force_terminal=False)
    # Empty columns would take width from the others.
    filled = {name: list(map(printable, cells)) for name, cells in columns.items() if any(cells)}
    lines = [*_wrapped(printable(title), console, indent=""), ""]
    if filled:
        lines += [*_table_lines(filled, numbers, console), ""]
    for note in notes:
        lines += _wrapped(printable(note), console)
    return "\n".join(lines).rstrip()
