"""Rows of CSV, with every cell as it is written."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from lorasweep.data.cells import TwoCells
from lorasweep.data.encoding import UnreadableRowError, check_text

_BLANKS = " \t\x1a"  # the last of which ended files of old
_LONGEST_CELL = 2**31 - 1  # Python's own limit is 131,072 characters
# Halves of a character stand for line ends within a line, since no text holds any.
_HIDDEN_RETURN, _HIDDEN_FEED = "\ud800", "\ud801"
_FIX = "write every cell, and quote those that hold the separator, a quote or a line break"


def csv_rows(lines: Iterator[str], separator: str = ",") -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows below a header; blank lines are no rows.

    Where two columns have one name, its cells are `TwoCells`, and the later ones are also named as
    pandas does.

    Args:
        lines: with their ends as they are.

    Returns:
        Rows, each with its number, the header not counted.

    Raises:
        UnreadableRowError: a row has another number of cells than the header, or open quotes.
    """
    records = csv.reader(map(_hidden, lines), delimiter=separator, strict=True)
    names: list[str] | None = None
    repeated: set[str] = set()
    row = 0
    while True:
        try:
            cells = _next(records)
        except csv.Error as error:
            reason = f"is not valid CSV ({error}, line {records.line_num})"
            raise UnreadableRowError(row, reason, _FIX) from None
        if cells is None:
            return
        cells = [_shown(cell) for cell in cells]
        for cell in cells:
            check_text(cell, row)
        blank = len(cells) == 1 and not cells[0].strip(_BLANKS)
        if not cells or (blank and (names is None or len(names) > 1)):
            continue
        if names is None:
            names = _names(cells)
            repeated = {name for name in cells if name and cells.count(name) > 1}
        elif len(cells) != len(names):
            count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            reason = f"has {count} where the header has {len(names)} (line {records.line_num})"
            raise UnreadableRowError(row, reason, _FIX)
        else:
            yield (
                row,
                {
                    **dict(zip(names, cells, strict=True)),
                    **dict.fromkeys(repeated, TwoCells()),
                },
            )
        row += 1


def _next(records: Iterator[list[str]]) -> list[str] | None:
    """Read a record; the length of its cells is no mistake here, and may be one elsewhere."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        return next(records, None)
    finally:
        csv.field_size_limit(before)


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
    """Name the columns as pandas does, where a spreadsheet has no name or one name twice."""
    names: list[str] = []
    for index, name in enumerate(header):
        before = header[:index].count(name)
        own = name or f"Unnamed: {index}"
        names.append(f"{name}.{before}" if name and before else own)
    return names
