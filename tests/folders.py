"""Results folders for tests of what reads them, written as a driver writes them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import (
    BaseMeasured,
    Record,
    Rung,
    SessionChanged,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from lorasweep.store.scores import Scores

TASK = {"evaluate": {"learning": ["gsm8k"], "source": ["hellaswag"]}}


def sweep_folder(
    root: Path,
    *,
    trials: int = 8,
    seed: int = 0,
    ends: Iterable[Mapping[str, Any]] = (),
    begun: int = 0,
    **content: Any,
) -> Path:
    """Write the results of a random search, trials that end otherwise and some that have not ended.

    Args:
        root: the folder; its name is the sweep's.
        ends: changes of the last trials' records, one each.
        content: sections of the sweep.
    """
    spec = parse_sweep(
        {
            "name": root.name,
            "space": {"lr": "1e-5..1e-2", "rank": [4, 16, 64]},
            **TASK,
            **content,
        }
    )
    rng = random.Random(seed)
    paths = SweepPaths(root)
    write_atomically(paths.sweep, dump_sweep(spec))
    domains = tuple(spec.domains) or ("",)
    records: list[Record] = [
        SweepStarted(name=spec.name, identity="i", data="d", time=1e9),
        SessionChanged(
            state="started", time=1e9, trials_planned=(trials + begun) * len(spec.studies)
        ),
        *(
            BaseMeasured(scores=Scores(learning=0.1, source_accuracy=0.8), domain=domain)
            for domain in domains
        ),
    ]
    for study in spec.studies:
        finals = []
        for number in range(trials + begun):
            values: dict[str, Any] = {"lr": 10 ** rng.uniform(-4.9, -2.1)}
            if study.method == "lora":
                values["rank"] = rng.choice([4, 16, 64])
            named = study.trial(values)
            shared: dict[str, Any] = {
                "trial": named.id,
                "number": number,
                "stage": "search",
                "seed": named.seed,
                "configuration": named.hyperparameters,
                "domain": study.domain,
                "time": 1e9 + 10 * number,
            }
            records.append(TrialStarted(**shared))
            source = round(rng.uniform(0.5, 0.8), 3)
            shared["time"] += 8
            finals.append(
                TrialFinished(
                    **shared,
                    status="COMPLETE",
                    learning=round(rng.uniform(0.1, 0.6), 3),
                    source_accuracy=source,
                    forgetting=0.8 - source,
                    response_loss=rng.uniform(1, 2),
                    tasks={"gsm8k@5": 0.5},
                    rungs=(Rung(percent=50, step=5, response_loss=rng.uniform(2, 3)),),
                    steps=10,
                    tokens=1000,
                    wall_s=7.5,
                    trainable=64,
                )
            )
        finals = finals[:trials]
        changes = list(ends)
        for final, change in zip(finals[len(finals) - len(changes) :], changes, strict=True):
            finals[finals.index(final)] = final.model_copy(update=dict(change))
        records += finals
    if not begun:
        records.append(SessionChanged(state="complete", time=2e9))
    with Journal(paths.journal, paths.lock) as journal:
        for record in records:
            journal.append(record)
    return root


PRUNED = {"status": "PRUNED", "learning": None, "source_accuracy": None, "forgetting": None}
DIVERGED = {**PRUNED, "status": "DIVERGED", "response_loss": None, "rungs": ()}
FAILED = {**DIVERGED, "status": "FAILED", "error": "the disk is full", "steps": 0}
