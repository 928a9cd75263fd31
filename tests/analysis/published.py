"""The complete result tables of Biderman et al. (2024), v2, appendix D, setting by setting."""

import csv
from pathlib import Path
from typing import Any

from lorasweep.store.results import SweepResults, TrialResult

TABLE = Path(__file__).parent.parent / "data" / "biderman_v2.csv"
SETTINGS = ("code-cpt", "math-cpt", "code-ift", "math-ift")


def published():
    """Read all settings as the domains of one sweep."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file))
    trials = []
    for number, row in enumerate(rows):
        levels: dict[str, Any] = {"duration": float(row["duration"])}
        if row["rank"]:
            levels |= {"rank": int(row["rank"]), "targets": "all", "alpha": float(row["alpha"])}
        trials.append(
            TrialResult(
                trial=f"row-{number + 2}",
                method=row["method"],
                status="COMPLETE",
                seed=0,
                hyperparameters=levels,
                domain=row["setting"],
                number=number,
                learning=float(row["learning"]),
                source_accuracy=float(row["source_accuracy"]),
            )
        )
    return SweepResults(
        name="biderman_v2",
        question="What does LoRA learn and forget?",
        axes=("rank", "duration"),
        trials=tuple(trials),
        origin=str(TABLE),
    )


def setting(name):
    """Read one setting as a part of the sweep."""
    return next(part for part in published().parts if part.domain == name)
