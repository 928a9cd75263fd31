"""Rows of CSV, with every cell as it is written."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from lorasweep.data.encoding import UnreadableRow, check_text

_LONGEST_CELL = 2**31 - 1  # Python's own limit is 131,072 characters
_FIX = "quote cells that hold the separator, a quote or a line break"


def csv_rows(lines: Iterator[str], separator: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Read rows below a header; blank lines are no rows.

    Args:
        lines: with their ends as they are.

    Returns:
        Rows, each with its number, the header not counted.

    Raises:
        UnreadableRow: a row has more or fewer cells than the header, or its quotes are not closed.
    """
    csv.field_size_limit(_LONGEST_CELL)
    records = csv.reader(lines, delimiter=separator, strict=True)
    names: list[str] | None = None
    row = 0
    while True:
        try:
            cells = next(records, None)
        except csv.Error as error:
            reason = f"is not valid CSV ({error}, line {records.line_num})"
            raise UnreadableRow(row, reason, _FIX) from None
        if cells is None:
            return
        for cell in cells:
            check_text(cell, row)
        if not cells or (len(cells) == 1 and names and len(names) > 1 and not cells[0].strip()):
            continue
        if names is None:
            names = _names(cells)
        elif len(cells) != len(names):
            reason = f"has {len(cells)} cells and the header {len(names)} (line {records.line_num})"
            raise UnreadableRow(row, reason, _FIX)
        else:
            yield row, dict(zip(names, cells, strict=True))
        row += 1


def _names(header: list[str]) -> list[str]:
    """Name the columns; those that a spreadsheet or pandas left without a name get pandas' name."""
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
    for name in names:
        if names.count(name) > 1:
            raise UnreadableRow(0, f"names column {name!r} twice", "rename one of them")
    return names
