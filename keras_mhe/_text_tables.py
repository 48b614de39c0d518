"""Tables as text."""

import io
from collections.abc import Sequence

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
        listed, others = names[:4], len(names[4:])
        more = f" and {others} more" if others else ""
        sentences.append(f"{reason}: {', '.join(listed)}{more}.")
    return sentences


def format_table(
    title: str, columns: dict[str, list[str]], numbers: Sequence[str], *notes: str
) -> str:
    """A title and a table, as wide as the terminal, or 80 columns without one.

    Control and format characters in names are escaped.

    Args:
        title: a few sentences.
        columns: the cells of each column by its name. Columns with only empty cells are omitted.
        numbers: names of the columns that are aligned to the right.
        notes: sentences below the table.
    """
    # A dependency of Keras, which uses it for its summaries.
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    # Empty columns would take width from the others.
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(
            rich.text.Text(name),
            overflow="fold",
            justify="right" if name in numbers else "left",
            vertical="bottom",
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(rich.text.Text(printable(cell)) for cell in cells))
    text = io.StringIO()
    # Names such as `[red]` and `:x:` are neither markup nor emoji.
    console = rich.console.Console(
        file=text,
        force_jupyter=False,
        force_terminal=False,
        color_system=None,
        markup=False,
        emoji=False,
    )
    console.print(printable(title))
    console.print(table)
    for note in notes:
        first, *others = rich.text.Text(printable(note)).wrap(console, console.width - 2)
        console.print(first)
        for line in others:
            # So that no name, after many other words, looks like a note.
            console.print(rich.text.Text("  ").append_text(line))
    return text.getvalue()
