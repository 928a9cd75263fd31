"""What each arm leaves of its trials: one JSON file, the same for all arms."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AXES = ("lr", "targets", "rank")
SCORES = ("train_loss", "response_loss", "learning", "source_accuracy", "train_s", "evaluate_s")


def parse_arguments(description: str | None) -> tuple[Path, Path]:
    """Read the command line of a plain arm: the sweep file, and the file for the scores."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sweep", type=Path, help="sweep file, a grid")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the scores")
    arguments = parser.parse_args()
    return arguments.sweep.resolve(), arguments.out.resolve()


def trial_row(values: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Join a trial's configuration and scores into one row."""
    return {name: values[name] for name in AXES} | {name: scores[name] for name in SCORES}


def write_scores(file: Path, trials: list[dict[str, Any]], first_step: float) -> None:
    """Write the trials of an arm.

    Args:
        first_step: when the arm's first optimizer step was done, in seconds since 1970.
    """
    content = {"first_step": first_step, "trials": trials}
    file.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
