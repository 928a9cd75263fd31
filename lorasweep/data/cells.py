"""Cells as text: what is text is taken as it is, and what has no one way to be written is refused.

JSON and CSV are read as they are written (`lorasweep.data.written`), so their cells are strings. In
Parquet, Arrow and saved data sets strings, whole numbers and decimals have one text.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from lorasweep.errors import DataError

_LONGEST_SHOWN = 40  # characters of a value in a sentence
_TEXT = re.compile(r"(large_)?string|u?int\d+|decimal|null")


class TwoCells:
    """Cell of a column whose name stands twice in a header, so that nobody knows which is meant."""


def text_of(cell: Any, column: str, row: int) -> str:
    """Take a cell as text; none at all is empty.

    Args:
        row: its number in the file, from 1; 0 where a stream does not know it.

    Raises:
        DataError: the cell has no one text, as a date, a float, a truth value, bytes and a list do.
    """
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, TwoCells):
        raise DataError(
            f"data: column {column!r} must stand once in the header, and stands there twice (row "
            f"{row:,} has two such cells); rename one of them"
        )
    shown = str(cell)
    if len(shown) > _LONGEST_SHOWN:
        shown = f"{shown[:_LONGEST_SHOWN]}..."
    kind = "bytes" if isinstance(cell, bytes) else f"a {type(cell).__name__}"
    place = f"row {row:,}" if row else "a row"
    raise _refusal(column, f"{kind} in {place} ({shown})", nested=isinstance(cell, list | dict))


def refuse_types(features: Any, column: str) -> None:
    """Refuse a column whose type already says that it holds no text, before a row is read.

    Args:
        features: of a data set of `datasets`; None where only its rows tell the types.

    Raises:
        DataError: the column has another type than strings, whole numbers or decimals.
    """
    if features is None:
        return
    kind = getattr(features[column], "dtype", "lists or objects")  # nested types have none
    if not _TEXT.match(kind):
        raise _refusal(column, f"{kind} from row 1 on", nested=kind == "lists or objects")


def _refusal(column: str, got: str, *, nested: bool) -> DataError:
    fix = "cast the column to strings, written as they are to be trained"
    if nested:
        fix = "name another column with data.prompt and data.response, data.messages, or data.text"
    return DataError(f"data: column {column!r} must hold text, got {got}; {fix}")
