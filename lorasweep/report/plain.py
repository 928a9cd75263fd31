"""Any value of the analysis in plain words, and any list of them as a table of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorasweep.report.payload import tidy
from lorasweep.report.wording import UNKNOWN, level, number, signed


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a table of the page; numbers stand to the right."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def rate(value: Any) -> str:
    """Write a learning rate, of which the first digits count and not the decimals."""
    return UNKNOWN if value is None else level(tidy(value))


def interval(row: Mapping[str, Any], write: Callable[[Any], str] | None = None) -> str:
    """Write the bounds of an effect; what has none is open there."""
    low, high, write = row.get("low"), row.get("high"), write or words
    if low is None and high is None:
        return UNKNOWN
    if low is None or high is None:
        return f"above {write(low)}" if high is None else f"below {write(high)}"
    return f"{write(low)} to {write(high)}"


def sentences(value: Any) -> str:
    """Write one clause or several as sentences, the way they begin and end."""
    clauses = [words(item) for item in (value if isinstance(value, list) else [value]) if item]
    return " ".join(
        f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.?!' else '.'}" for text in clauses
    )


def words(value: Any) -> str:
    """Write any value of the analysis as plain text."""
    value = value if isinstance(value, str) else tidy(value)
    if value is None or isinstance(value, bool):
        return UNKNOWN if value is None else "yes" if value else "no"
    if isinstance(value, float):
        # Rounding leaves sums of equal scores a hair from zero; a learning rate is never as small.
        plain = 0.001 <= abs(value) < 10 or abs(value) < 1e-9
        return signed(number(value) if plain else level(value))
    if isinstance(value, Mapping):
        if {"low", "high"} <= value.keys():
            middle = value.get("learning", value.get("value"))
            return " ".join(filter(None, [middle and words(middle), f"({interval(value)})"]))
        return ", ".join(f"{key.replace('_', ' ')} {words(item)}" for key, item in value.items())
    if isinstance(value, list):
        prose = any(isinstance(item, str) and " " in item for item in value)
        return (" " if prose else ", ").join(words(item) for item in value)
    return str(value)


def lay_out(caption: str, value: Any) -> Table:
    """Lay any part of the analysis out as a table: a row for each item, a column for each field."""
    if isinstance(value, Mapping):
        inner = [item for item in value.values() if isinstance(item, list | Mapping)]
        if len(inner) == len(value) and inner:
            rows = [
                {"": key, **row}
                for key, item in value.items()
                for row in (item if isinstance(item, list) else [item])
                if isinstance(row, Mapping)
            ]
            if rows:
                return lay_out(caption, rows)
        return Table(
            caption, ["", "value"], [[k.replace("_", " "), words(v)] for k, v in value.items()]
        )
    if isinstance(value, list):
        if not all(isinstance(row, Mapping) for row in value):
            return Table(caption, ["value"], [[words(row)] for row in value])
        seen = dict.fromkeys(k for row in value for k, item in row.items() if item is not None)
        heads = [head for head in seen if head != "domain"]
        cells = [[words(row.get(head)) for head in heads] for row in value]
        return Table(caption, [head.replace("_", " ") for head in heads], cells)
    return Table(caption, ["value"], [[words(value)]])
