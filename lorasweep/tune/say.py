"""Tell the person in front; apart from the live view, which has to load Ray Tune."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, sentence: str) -> None:
    """Tell the person in front what is going on."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
