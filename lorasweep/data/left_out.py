"""Rows that are left out of the data, counted by reason for the notes of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field

_NAMED = 5  # rows of a reason whose places are kept


@dataclass
class LeftOutRows:
    """Counts rows by the reason for which they are not trained on, and keeps the first places.

    counts: rows of each reason, which completes "N rows were left out, because".
    places: of the first rows of each reason, such as `row 7`.
    """

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count a row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.places.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append(place)

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
            f"{reason} ({listed(self.places[reason], count)})"
            for reason, count in self.counts.items()
        ]


def listed(places: list[str], count: int) -> str:
    """List the first places of rows, `rows 4, 7 and 3 more`.

    Args:
        count: rows there are in all.
    """
    shared = all(place.startswith("row ") and " of " not in place for place in places)
    named = [place.removeprefix("row ") for place in places] if shared else list(places)
    if count > len(named):
        named.append(f"{count - len(named):,} more")
    text = " and ".join([part for part in (", ".join(named[:-1]), named[-1]) if part])
    return f"row{'s' if count > 1 else ''} {text}" if shared else text
