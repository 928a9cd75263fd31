"""Numbers and user text as Markdown shows them; nothing a user wrote can break a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from lorasweep.analysis.scale import show
from lorasweep.spec.space import Level

UNKNOWN = "n/a"
LONGEST = 300  # characters of a name on the page; trials.csv has them all

_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# What would open a heading, a list or a rule at the start of a line.
_OPENING = re.compile(
    r"^(#(?=#{0,5}(?:\s|$))|[+\-](?=\s|$)|[-=](?=[-=]*$)|\d{1,9}(?=[.)](?:\s|$)))"
)
_NUMBER = re.compile(r"|n/a|-?[\d,.]+(?:e[+-]?\d+)?(?:%| [a-z]+)?")


class Markdown(str):
    """Text that is Markdown already and must not be escaped again."""

    __slots__ = ()


def escape(value: object) -> str:
    """Write any value as one line of Markdown that shows exactly its text."""
    if isinstance(value, Markdown):
        return value
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(r"\\\1", text)
    return _OPENING.sub(lambda m: "".join(f"&#{ord(character)};" for character in m[0]), text)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """Write a table, columns of numbers to the right."""
    cells = [[escape(cell) for cell in row] for row in rows]
    columns = zip(*cells, strict=True) if cells else ([] for _ in heads)
    rules = ["---:" if all(_NUMBER.fullmatch(c) for c in column) else "---" for column in columns]
    lines = [[escape(head) for head in heads], rules, *cells]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def number(value: float | None, digits: int = 3) -> str:
    """Write a score; three decimals below ten, four digits above."""
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.4g}"
    return text.removeprefix("-") if float(text) == 0 else text


def plural(count: int, word: str) -> str:
    """Write a count with its word."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def signed(text: str) -> str:
    """Write numbers below zero with a minus sign and not a hyphen."""
    return re.sub(r"(?:(?<![\w.])|(?<=\de))-(?=\d)", "\N{MINUS SIGN}", text)


def compact(value: float | None) -> str:
    """Write a number of any size: as a score, or with four digits where that would hide it."""
    if value is None:
        return UNKNOWN
    # Rounding leaves sums of equal scores a hair from zero.
    is_score = 0.001 <= abs(value) < 10 or abs(value) < 1e-9
    return number(value) if is_score else level(value)


def interval(low: float | None, high: float | None, write: Callable[[float], str] = compact) -> str:
    """Write the bounds of an effect, of which each may be open."""
    if low is None and high is None:
        return UNKNOWN
    if low is None or high is None:
        return f"below {write(high)}" if high is not None else f"above {write(low or 0.0)}"
    return f"{write(low)} to {write(high)}"


def sentence(clause: str) -> str:
    """Write a clause as a sentence, with a capital letter and a full stop."""
    stop = "" if clause[-1:] in {"", ".", "?", "!"} else "."
    return f"{clause[:1].upper()}{clause[1:]}{stop}"


def shorten(value: Level) -> Level:
    """Cut a text that no reader would read to its end, as a cell of a table may hold one."""
    if not isinstance(value, str) or len(value) <= LONGEST:
        return value
    return f"{value[: LONGEST - 1]}…"


def percent(share: float) -> str:
    """Write a share of one."""
    return f"{100 * share:.0f}%"


def duration(seconds: float) -> str:
    """Write seconds in the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def level(value: Level | None) -> str:
    """Write a hyperparameter's level with four digits at most."""
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return show(value)


def settings(configuration: Mapping[str, Level], names: Iterable[str]) -> str:
    """Write a configuration's searched values."""
    known = [name for name in names if name in configuration]
    return ", ".join(f"{name}={level(configuration[name])}" for name in known) or "no searched axis"


def enumerate_words(words: Iterable[str]) -> str:
    """Join words as a sentence does."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
