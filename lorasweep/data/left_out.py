"""Rows that are left out of the data, counted by reason for the notes of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_NAMED = 5  # rows of a reason whose places are kept
Place = tuple[int, str]  # row, and file, empty where a data set is one file


@dataclass
class LeftOutRows:
    """Counts rows by the reason for which they are not trained on, and keeps the first places.

    counts: rows of each reason, which completes "N rows were left out, because".
    places: of the first rows of each reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)

    def add(self, reason: str, row: int, file: str = "") -> None:
        """Count a row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.places.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append((row, file))

    @property
    def total(self) -> int:
        """Number of rows left out."""
        return sum(self.counts.values())

    def notes(self, rows: int, kind: str = "rows") -> list[str]:
        """Write a sentence for each reason.

        Args:
            rows: how many there were in all.
            kind: of rows, such as `held-out rows`.
        """
        return [
            f"{count:,} of {rows:,} {kind} {'was' if count == 1 else 'were'} left out, because "
            f"{reason}{listed(self.places[reason], count)}"
            for reason, count in self.counts.items()
        ]


def listed(places: Sequence[Place], count: int) -> str:
    """List the first places of rows in brackets, ` (rows 4, 7 and 3 more)`.

    Args:
        places: empty, or with row 0, where a stream does not know them.
        count: rows there are in all.
    """
    rows: dict[str, list[str]] = {}
    for row, file in places:
        if row:
            rows.setdefault(file, []).append(f"{row:,}")
    if not rows:
        return ""
    more = count - sum(len(numbers) for numbers in rows.values())
    if list(rows) == [""]:
        numbers = [*rows[""], *([f"{more:,} more"] if more else [])]
        return f" ({'row' if count == 1 else 'rows'} {_joined(numbers)})"
    named = [
        f"{'row' if len(numbers) == 1 else 'rows'} {_joined(numbers)} of {file!r}"
        for file, numbers in rows.items()
    ]
    return f" ({_joined([*named, *([f'{more:,} more'] if more else [])])})"


def _joined(parts: list[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
