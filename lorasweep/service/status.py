"""How far a sweep has come, and its report whenever one is asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lorasweep.errors import SpecError, UsageError
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, TrialResult, load_results


def status_of(folder: Path) -> dict[str, Any]:
    """Collect a sweep's state as plain values.

    Raises:
        UsageError: the folder holds no sweep.
        JournalError: its journal is damaged.
    """
    results = load_results(folder)
    ended = [trial for trial in results.trials if trial.status not in {"RUNNING", "PENDING"}]
    scored = [trial for trial in ended if trial.learning is not None]
    best = max(scored, key=lambda trial: trial.learning or 0.0, default=None)
    return {
        "name": results.name,
        "state": _state(results),
        "trials_planned": results.trials_planned,
        "trials": dict(Counter(trial.status for trial in results.trials)),
        "tokens": sum(trial.tokens for trial in ended),
        "elapsed_s": None if results.started is None else round(time.time() - results.started, 1),
        "base": None if results.base is None else results.base.model_dump(),
        "best": None if best is None else _best(best),
        "journal": str(SweepPaths(folder).journal),
    }


def _state(results: SweepResults) -> str:
    """Name the state in a word."""
    return {None: "not started", "started": "running"}.get(results.state, str(results.state))


def _best(trial: TrialResult) -> dict[str, Any]:
    return {
        "trial": trial.trial,
        "method": trial.method,
        "configuration": dict(trial.hyperparameters),
        "learning": trial.learning,
        "forgetting": trial.forgetting,
    }


def show_status(facts: dict[str, Any]) -> None:
    """Print a sweep's state for a person."""
    ended = sum(n for s, n in facts["trials"].items() if s not in {"RUNNING", "PENDING"})
    print(f"{facts['name']}: {facts['state']}, {ended} of {facts['trials_planned'] or '?'} trials")
    for status, count in sorted(facts["trials"].items()):
        print(f"  {status:<9} {count}")
    if (best := facts["best"]) is not None:
        print(f"  best      learning {best['learning']:.3f} ({best['trial']})")
        print(f"            {', '.join(f'{k}={v}' for k, v in best['configuration'].items())}")
    print(f"  journal   {facts['journal']}")


def write_reports(
    folders: list[Path], *, table: Path | None, space: str | None, out: Path | None
) -> list[str]:
    """Write one report of one or several results folders, or of a table of trials made elsewhere.

    Returns:
        The lines to print.

    Raises:
        SpecError: options contradict each other.
        UsageError: nothing can be read there, or nothing written.
    """
    from lorasweep.report.render import write_report

    if table is not None:
        if folders:
            raise SpecError(["--table: a table and a results folder cannot be given together"])
        from lorasweep.store.table import read_table

        results = read_table(table, _axes(space))
        target = out or table.with_suffix("").with_name(f"{table.stem}-report")
    elif space is not None:
        raise SpecError(["--space: must be given with --table; a results folder knows its axes"])
    else:
        results = load_sweeps(folders or [Path("results/default")])
        several = bool(results.sweeps)
        target = out or (
            Path("results/report") if several else SweepPaths(Path(results.origin)).report
        )
    try:
        written = write_report(results, target)
    except OSError as error:
        raise UsageError(
            f"--out: {error.filename or target} cannot be written ({error.strerror or error})"
        ) from None
    return [f"report   {written.markdown}", f"page     {written.page}"]


def load_sweeps(folders: Iterable[Path]) -> SweepResults:
    """Read results folders, several of them as one; a folder that is named twice counts once.

    Raises:
        UsageError: one holds no sweep, or they hold different results of one trial.
        JournalError: a journal is damaged.
    """
    from lorasweep.store.merge import merge

    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    sweeps = []
    for folder in once.values():
        try:
            sweeps.append(load_results(folder))
        except OSError as error:
            raise UsageError(
                f"{folder}: the results cannot be read ({error.strerror or error})"
            ) from None
    return merge(sweeps)


def _axes(space: str | None) -> list[str]:
    """Read the axes of a table; their ranges are those of its trials."""
    if space is None:
        return []
    axes = [part.strip() for part in space.split(",")]
    if not all(axes):
        raise SpecError([f"--space: must name columns separated by commas, got {space!r}"])
    return axes
