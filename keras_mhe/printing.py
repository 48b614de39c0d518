"""Tables as text."""

import io
from collections.abc import Sequence


def short_name(layer: str, kernel: str) -> str:
    """A layer, and its weight where that is not the one that everybody expects."""
    name = f"{layer}/{kernel}".lstrip("/")
    return name.removesuffix("/kernel").removesuffix("/embeddings")


def printed(title: str, columns: dict[str, list[str]], numbers: Sequence[str], *notes: str) -> str:
    """A title and a table, as wide as the terminal or 80 columns.

    Args:
        title: a few sentences.
        columns: the cells of each column, by its name; columns of empty cells are left out.
        numbers: names of the columns that are set to the right.
        notes: sentences to stand below it.
    """
    # Comes with Keras, which prints its summaries by it.
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    # Columns in which nothing stands would take their width from the others.
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        drawn.add_column(
            rich.text.Text(name),
            overflow="fold",
            justify="right" if name in numbers else "left",
            vertical="bottom",
        )
    for cells in zip(*columns.values(), strict=True):
        drawn.add_row(*map(rich.text.Text, cells))
    text = io.StringIO()
    console = rich.console.Console(
        file=text, force_jupyter=False, force_terminal=False, color_system=None
    )
    console.print(title, markup=False)
    console.print(drawn)
    for note in notes:
        console.print(note, markup=False)
    return text.getvalue()
