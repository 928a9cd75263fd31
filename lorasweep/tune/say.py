"""Lines for the user outside of the live view, whose modules need Ray Tune."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, sentence: str) -> None:
    """Print a sentence on what is going on."""
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
