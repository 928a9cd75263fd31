"""Write the report of results folders, or of a table of trials made elsewhere."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorasweep.errors import SpecError, UsageError
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, which took a seventh of the time for ten thousand trials."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def write_reports(
    folders: list[Path], *, table: Path | None, space: str | None, out: Path | None
) -> list[str]:
    """Write one report of one or several results folders, or of a table.

    Returns:
        The lines to print.

    Raises:
        SpecError: options contradict each other.
        UsageError: the input cannot be read, or the report cannot be written.
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
    """Read results folders and merge them; a folder that is named twice counts once.

    Raises:
        UsageError: a folder holds no sweep, or two hold different results of one trial.
        JournalError: a journal is damaged.
    """
    from lorasweep.store.merge import merge

    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    sweeps = []
    for folder in unique.values():
        try:
            sweeps.append(load_results(folder))
        except OSError as error:
            raise UsageError(
                f"{folder}: the results cannot be read ({error.strerror or error})"
            ) from None
    return merge(sweeps)


def _axes(space: str | None) -> list[str]:
    """Split --space into the axes of a table, whose ranges follow from its trials."""
    if space is None:
        return []
    axes = [part.strip() for part in space.split(",")]
    if not all(axes):
        raise SpecError([f"--space: must name columns separated by commas, got {space!r}"])
    return axes
