"""Rows with columns of equal width, as Go's tabwriter lays out Hubble's tables: three spaces between columns."""

from collections.abc import Sequence

_PADDING = 3


def layout(rows: Sequence[Sequence[str]]) -> str:
    """Lines for rows, each ended by a newline; the last cell of a row is not padded."""
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell) + _PADDING)
    return "".join(
        "".join(cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])) + row[-1] + "\n"
        for row in rows
        if row
    )
