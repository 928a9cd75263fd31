"""Rows of JSON and JSON Lines, with every number and word as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from lorasweep.data.encoding import UnreadableRowError, check_text

_BLANKS = re.compile(r"[ \t\n\r]*")
_FIX = "repair or remove that row"
_ARTICLES = {"int": "a number", "list": "a list", "bool": "true or false", "NoneType": "null"}


class _Number(str):
    """The characters of a number, `NaN` and `Infinity` included."""

    __slots__ = ()


class _RepeatedKeyError(Exception):
    """An object names a key twice, so that one of its values would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return content


_DECODER = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=_Number, object_pairs_hook=_object
)


def json_rows(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read objects that follow one another, on one line each or over several, or a list of them.

    A string in place of an object is a row whose column is `text`. A cell is a string, which for
    numbers, `true` and `false` has the characters of the file; None; or a list or dictionary of
    plain JSON values.

    Returns:
        Rows, each with its number.

    Raises:
        UnreadableRowError: a row is not valid JSON, or no object.
    """
    text = _Pending(lines)
    listed = text.next_mark(1) == "["
    if listed:
        text.skip()
    for row in count(1):
        if (mark := text.next_mark(row)) == "" or (listed and mark == "]"):
            break
        yield row, _cells(text.value(row), row)
        if listed and (mark := text.next_mark(row)) == ",":
            text.skip()
        elif listed and mark != "]":
            raise UnreadableRowError(row, "is not followed by a comma or the end of the list", _FIX)
    if listed:
        if mark != "]":
            raise UnreadableRowError(row, "is missing, because the list is not closed", _FIX)
        text.skip()
        if text.next_mark(row):
            raise UnreadableRowError(row, "comes after the end of the list", _FIX)


class _Pending:
    """Text of a file that has been read and not yet decoded; values may span lines."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._text = ""
        self._at = 0
        self._step = 1

    def next_mark(self, row: int) -> str:
        """Look at the next character that is no blank; an empty string at the end of the file."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                check_text(self._text[self._at], row)
                return self._text[self._at]
            if not self._read_on():
                return ""

    def skip(self) -> None:
        self._at += 1

    def value(self, row: int) -> Any:
        """Decode a value, of as many lines as it takes."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # What breaks off at the end of a line goes on in the next; a token never does.
                if not self._text[error.pos :].strip(" \t\n\r") and self._read_on():
                    continue
                check_text(self._text[self._at : error.pos + 1], row)
                problem = error.msg.removesuffix(" at").removesuffix(" starting")
                reason = f"is not valid JSON ({problem} at character {error.pos - self._at + 1})"
                raise UnreadableRowError(row, reason, _FIX) from None
            except _RepeatedKeyError as error:
                reason = f"has the key {error.args[0]!r} twice"
                raise UnreadableRowError(row, reason, "leave one of them out") from None
            except RecursionError:
                raise UnreadableRowError(row, "is nested too deeply", _FIX) from None
            source = self._text[self._at : end]
            check_text(source, row)
            if "\\ud" in source or "\\uD" in source:
                _check_surrogates(value, row)
            self._at, self._step = end, 1
            return value

    def _read_on(self) -> bool:
        """Read more lines, twice as many each time, so that a long value is not decoded often."""
        lines = list(islice(self._lines, self._step))
        self._text, self._at = self._text[self._at :] + "".join(lines), 0
        self._step *= 2
        return bool(lines)


def _check_surrogates(value: Any, row: int) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        reason = f"holds {half}, half of a character"
        raise UnreadableRowError(row, reason, "write the whole character") from None


def _cells(value: Any, row: int) -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: _cell(cell, row) for name, cell in value.items()}
    if isinstance(value, str) and not isinstance(value, _Number):
        return {"text": value}
    kind = "a number" if isinstance(value, _Number) else _ARTICLES[type(value).__name__]
    raise UnreadableRowError(row, f"must be an object such as {{...}}, got {kind}", _FIX)


def _cell(value: Any, row: int) -> Any:
    """Turn a value of a row into a cell: what is one word becomes its characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return str(value)
    return _plain(value, row) if isinstance(value, list | dict) else value


def _plain(value: Any, row: int) -> Any:
    """Turn numbers inside of lists and objects into numbers."""
    if isinstance(value, dict):
        return {name: _plain(inner, row) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, row) for inner in value]
    if not isinstance(value, _Number):
        return value
    if value.lstrip("-").isdigit():
        try:
            return int(value)
        except ValueError:  # of thousands of digits
            raise UnreadableRowError(row, "holds a number that is too long", _FIX) from None
    return float(value)
