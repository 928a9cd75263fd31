"""Rows of CSV, with every cell as it is written."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from lorasweep.data.encoding import UnreadableRowError, check_text

_LONGEST_CELL = 2**31 - 1  # Python's own limit is 131,072 characters
# Halves of a character stand for line ends within a line, since no text holds any.
_HIDDEN_RETURN, _HIDDEN_FEED = "\ud800", "\ud801"
_FIX = "quote cells that hold the separator, a quote or a line break"


def csv_rows(lines: Iterator[str], separator: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Read rows below a header; blank lines are no rows.

    Args:
        lines: with their ends as they are.

    Returns:
        Rows, each with its number, the header not counted.

    Raises:
        UnreadableRowError: a row has another number of cells than the header, or open quotes.
    """
    csv.field_size_limit(_LONGEST_CELL)
    records = csv.reader(map(_hidden, lines), delimiter=separator, strict=True)
    names: list[str] | None = None
    row = 0
    while True:
        try:
            cells = next(records, None)
        except csv.Error as error:
            reason = f"is not valid CSV ({error}, line {records.line_num})"
            raise UnreadableRowError(row, reason, _FIX) from None
        if cells is None:
            return
        cells = [_shown(cell) for cell in cells]
        for cell in cells:
            check_text(cell, row)
        if not cells or (len(cells) == 1 and names and len(names) > 1 and not cells[0].strip()):
            continue
        if names is None:
            names = _names(cells)
        elif len(cells) != len(names):
            reason = f"has {len(cells)} cells and the header {len(names)} (line {records.line_num})"
            raise UnreadableRowError(row, reason, _FIX)
        else:
            yield row, dict(zip(names, cells, strict=True))
        row += 1


def _hidden(line: str) -> str:
    """Hide what would end a line for Python's reader and is not at its end.

    pandas and others quote a cell for the line end that they write, and for no other.
    """
    length = len(line) - (2 if line.endswith("\r\n") else 1)
    if "\r" not in line[:length] and "\n" not in line[:length]:
        return line
    body = line[:length].replace("\r", _HIDDEN_RETURN).replace("\n", _HIDDEN_FEED)
    return body + line[length:]


def _shown(cell: str) -> str:
    if cell.isascii():
        return cell
    return cell.replace(_HIDDEN_RETURN, "\r").replace(_HIDDEN_FEED, "\n")


def _names(header: list[str]) -> list[str]:
    """Name the columns; those that a spreadsheet or pandas left without a name get pandas' name."""
    names = [name or f"Unnamed: {index}" for index, name in enumerate(header)]
    for name in names:
        if names.count(name) > 1:
            raise UnreadableRowError(0, f"names column {name!r} twice", "rename one of them")
    return names
