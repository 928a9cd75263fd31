"""Rows of a table as text, and one sentence for each mistake in them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorasweep.errors import DataError, UsageError
from lorasweep.spec.space import Level

# The separators that spreadsheets write.
_DELIMITERS = (",", ";", "\t")
# A longer name or level is a cell that slipped, and no report could show it.
_LONGEST = 200
_SHOWN = 60
# Beyond these, products are no longer finite, and no axis can be drawn.
_LARGEST = 1e30
_SMALLEST = 1e-30


def as_number(text: str) -> float:
    """Read a number as spreadsheets write it, without Python's underscores.

    Raises:
        ValueError: it is none.
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


def shown(text: str) -> str:
    """Quote what was got, cut where a sentence would become unreadable."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, with what an error must name.

    line: of the file, from 1; the last one, where a quoted cell goes over several.
    """

    file: str
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Text of a cell, empty where the table has no such column."""
        return self.cells.get(column, "").strip()

    def fail(self, column: str, rule: str) -> DataError:
        """Phrase a mistake in one sentence."""
        got = shown(self.text(column) or "an empty cell")
        return DataError(f"{self.file}, row {self.line}, column {column}: {rule}, got {got}")

    def name(self, column: str) -> str:
        """Read a name or a level in words, as one line."""
        text = self.text(column)
        if not text.isprintable():
            text = " ".join(text.split())
            if not text.isprintable():
                raise self.fail(column, "must have no control characters")
        if len(text) > _LONGEST:
            raise self.fail(column, f"must have at most {_LONGEST} characters")
        return text

    def number(self, column: str) -> float | None:
        """Read a finite number, None for an empty cell."""
        if not (text := self.text(column)):
            return None
        try:
            value = as_number(text)
        except ValueError:
            point = " with a decimal point" if "," in text else ""
            raise self.fail(column, f"must be a number{point} or empty") from None
        if not math.isfinite(value) or abs(value) > _LARGEST:
            raise self.fail(column, f"must be a finite number, at most {_LARGEST:g}, or empty")
        return value

    def measured(self, column: str, *, expected: bool) -> float | None:
        """Read a score; where none is expected, NaN and infinity count as none."""
        if not expected:
            try:
                if not math.isfinite(as_number(self.text(column))):
                    return None
            except ValueError:
                pass  # `number` says so in a sentence
        return self.number(column)

    def whole(self, column: str) -> int | None:
        """Read a whole number, None for an empty cell; 2e9 and 16.0 are whole."""
        value = self.number(column)
        if value is None:
            return None
        if not value.is_integer():
            raise self.fail(column, "must be a whole number")
        try:
            return int(self.text(column))  # exact also where a float would round
        except ValueError:
            return int(value)

    def choice(self, column: str, choices: Sequence[str], default: str) -> str:
        """Read one of a few words in any case."""
        text = self.text(column)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        if text:
            raise self.fail(column, f"must be one of {', '.join(choices)}")
        return default

    def level(self, column: str, kind: type) -> Level | None:
        """Read a hyperparameter's level by its kind; `object` is a number where it can be."""
        if not (text := self.text(column)):
            return None
        if kind is str:
            return self.name(column)
        if kind is int:
            return self.whole(column)
        if kind is object:
            try:
                as_number(text)
            except ValueError:
                return self.name(column)
        value = self.number(column)
        if value and abs(value) < _SMALLEST:
            raise self.fail(column, f"must be 0, or at least {_SMALLEST:g} in size")
        return value


def read_rows(path: Path) -> list[Row]:
    """Read a table with a header, its cells separated by commas, semicolons or tabs.

    Raises:
        UsageError: the file cannot be read.
        DataError: it is no table with a column `learning`, or has no row.
    """
    text = _text(path)
    with _cells_of_any_length():
        delimiter, header = _header(path, text)
        rows = list(_rows_below(path, text, delimiter, header))
    if not rows:
        raise DataError(f"{path}: must have at least one trial below its header, got none")
    return rows


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: the table cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(
            f"{path}, row {row}: must be text in UTF-8, got byte 0x{byte:02x}"
        ) from None


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit; names and levels have limits of their own."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Parse each line into its number and cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, row {reader.line_num}: must be a CSV file ({error})") from None


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    """Find the separator that gives the header the one required column, `learning`."""
    headers = {}
    for delimiter in _DELIMITERS:
        _, cells = next(_cells(path, text, delimiter), (1, []))
        headers[delimiter] = [" ".join(name.split()) for name in cells]
        if "learning" in headers[delimiter]:
            break
    else:
        got = ", ".join(name for name in headers[","] if name)
        raise DataError(
            f"{path}, row 1: must have a column 'learning' among columns that are separated by "
            f"commas, semicolons or tabs, got {shown(got) if got else 'nothing'}"
        )
    header = headers[delimiter]
    for name in header:
        if not name or header.count(name) > 1:
            raise DataError(f"{path}, row 1: each column needs a name once, got {shown(name)}")
        if not name.isprintable() or len(name) > _LONGEST:
            raise DataError(
                f"{path}, row 1: a column's name must have at most {_LONGEST} printable "
                f"characters, got {shown(name)}"
            )
    return delimiter, header


def _rows_below(path: Path, text: str, delimiter: str, header: list[str]) -> Iterator[Row]:
    lines = _cells(path, text, delimiter)
    next(lines)
    for line, cells in lines:
        if len(cells) == len(header):
            if any(map(str.strip, cells)):
                yield Row(str(path), line, dict(zip(header, cells, strict=True)))
        elif any(map(str.strip, cells)):
            raise DataError(
                f"{path}, row {line}: must have {len(header)} columns as the header has, got "
                f"{len(cells)}"
            )
