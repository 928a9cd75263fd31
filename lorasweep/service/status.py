"""How far a sweep has come, and its report whenever one is asked for."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorasweep.errors import SpecError, UsageError
from lorasweep.spec.studies import study_name
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results


def status_of(folder: Path) -> dict[str, Any]:
    """Collect a sweep's state as plain values.

    Raises:
        UsageError: the folder holds no sweep.
        JournalError: its journal is damaged.
    """
    results = load_results(folder)
    ended = [trial for trial in results.trials if trial.status not in {"RUNNING", "PENDING"}]
    studies = [study for part in results.parts for study in _studies(part)]
    bests = [study["best"] for study in studies if study["best"] is not None]
    # Scores of two domains do not compare.
    one = len({study["domain"] for study in studies}) < 2
    return {
        "name": results.name,
        "state": _state(results),
        "trials_planned": results.trials_planned,
        "trials": dict(Counter(trial.status for trial in results.trials)),
        "tokens": sum(trial.tokens for trial in ended),
        "elapsed_s": None if results.started is None else round(time.time() - results.started, 1),
        "base": None if results.base is None else results.base.model_dump(),
        "best": max(bests, key=lambda best: best["learning"], default=None) if one else None,
        "studies": studies,
        "journal": str(SweepPaths(folder).journal),
    }


def _state(results: SweepResults) -> str:
    """Name the state in a word."""
    return {None: "not started", "started": "running"}.get(results.state, str(results.state))


def _studies(part: SweepResults) -> list[dict[str, Any]]:
    """Collect the state of each method in one domain."""
    bests = {best.method: _best(best) for best in find_best(configurations(part.trials))}
    return [
        {
            "domain": part.domain,
            "method": method,
            "base": None if part.base is None else part.base.model_dump(),
            "trials": dict(Counter(t.status for t in part.trials if t.method == method)),
            "best": bests.get(method),
        }
        for method in dict.fromkeys(trial.method for trial in part.trials)
    ]


def _best(best: Best) -> dict[str, Any]:
    winner = best.winner
    return {
        "trial": winner.trial,
        "method": best.method,
        "configuration": dict(winner.configuration),
        "seeds": list(winner.seeds),
        "learning": winner.learning,
        "forgetting": winner.forgetting,
    }


def show_status(facts: dict[str, Any]) -> None:
    """Print a sweep's state for a person."""
    from lorasweep.report.wording import level

    ended = sum(n for s, n in facts["trials"].items() if s not in {"RUNNING", "PENDING"})
    print(f"{facts['name']}: {facts['state']}, {ended} of {facts['trials_planned'] or '?'} trials")
    for status, count in sorted(facts["trials"].items()):
        print(f"  {status:<9} {count}")
    for study in facts["studies"]:
        if (best := study["best"]) is not None:
            of = study_name(study["method"], study["domain"])
            told = (f"{k}={level(v)}" for k, v in best["configuration"].items())
            seeds = f" over {len(best['seeds'])} seeds" if len(best["seeds"]) > 1 else ""
            print(f"  best      {of}: learning {best['learning']:.3f}{seeds} ({best['trial']})")
            print(f"            {', '.join(told)}")
    print(f"  journal   {facts['journal']}")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put off collecting garbage, which took a seventh of the time of ten thousand trials."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
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
