"""Check that a results folder may hold a sweep: it is new, or has a part of the same sweep."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from lorasweep.errors import SpecError, UsageError, in_a_line
from lorasweep.spec.file import read_yaml
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.store import journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import BaseMeasured, Record, TrialFinished, TrialStarted

_LEAST_ROOM = 4 * 2**20
_FULL = ("no space left", "errno 28", "disk quota exceeded")


def check_folder(paths: SweepPaths, spec: SweepSpec) -> None:
    """Refuse a results folder that holds something else or cannot be written; create none.

    Raises:
        SpecError: the folder holds another sweep; the sentence names the difference.
        UsageError: the folder holds files that are no sweep, is a file, or cannot be written.
    """
    try:
        _check_content(paths, spec)
        new = [folder for folder in (paths.root, *paths.root.parents) if not folder.exists()]
        paths.root.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=paths.root) as probe:
                probe.write(b"probe")
        finally:  # unreadable data or models are found later, and must leave no folder behind
            for folder in new:
                folder.rmdir()
    except OSError as error:
        raise UsageError(
            f"--out: {paths.root} cannot be written ({error.strerror or error}); choose another "
            "folder"
        ) from None


def check_room(paths: SweepPaths) -> None:
    """Check that a sweep can begin on the disk of its results folder.

    Raises:
        UsageError: there is less room than the report of a small sweep takes.
    """
    if (free := _free(paths)) < _LEAST_ROOM:
        raise UsageError(
            f"--out: there must be {_LEAST_ROOM >> 20} MiB free on the disk of {paths.root}, got "
            f"{free / 2**20:.1f}; make room, or choose another folder"
        )


def lack_of_room(paths: SweepPaths, error: Exception) -> str | None:
    """Phrase that a full disk ended a sweep, which libraries notice in many ways; else None."""
    seen = [error, error.__cause__, error.__context__]
    said = any(sign in str(one).lower() for one in seen for sign in _FULL)
    free = _free(paths)
    if not said and free >= _LEAST_ROOM // 4:
        return None
    return (
        f"{paths.root}: the disk is full ({free / 2**20:.1f} MiB free: {type(error).__name__}: "
        f"{in_a_line(error)}); make room and run the same command again to continue"
    )


def _free(paths: SweepPaths) -> int:
    """Bytes that are free on the disk of a results folder, which may not exist yet."""
    there = next(f for f in (paths.root, *paths.root.absolute().parents) if f.exists())
    return shutil.disk_usage(there).free


def _check_content(paths: SweepPaths, spec: SweepSpec) -> None:
    if paths.root.is_file():
        raise UsageError(f"--out: must be a folder, and {paths.root} is a file; choose another")
    if not paths.sweep.is_file():
        if paths.root.exists() and any(paths.root.iterdir()):
            raise UsageError(
                f"--out: must be a new folder or the results of this sweep, and {paths.root} holds "
                "other files; choose another"
            )
        return
    records = journal.read(paths.journal)
    if records and not holds_trials(records):
        return  # that sweep ended before its first trial, and nothing of it would be lost
    if found := differences(parse_sweep(read_yaml(paths.sweep)), spec):
        raise SpecError(
            [
                f"--out: {paths.root} holds the results of another sweep ({'; '.join(found[:3])}); "
                "choose another folder"
            ]
        )


def holds_trials(records: Sequence[Record]) -> bool:
    """Whether a journal has anything of a trial or of the base, which only its sweep can use."""
    return any(
        isinstance(record, TrialStarted | TrialFinished | BaseMeasured) for record in records
    )


def differences(there: SweepSpec, here: SweepSpec) -> list[str]:
    """List the fields in which two sweeps differ and that change results."""
    old, new = _decisive(there), _decisive(here)
    if old.keys() != new.keys():
        return [f"{' and '.join(old)} there, {' and '.join(new)} here"]
    found: dict[str, list[str]] = {}
    for study in old:
        for field in sorted(old[study].keys() | new[study].keys()):
            before, now = old[study].get(field), new[study].get(field)
            if before != now:
                found.setdefault(f"{field} {before!r} there and {now!r} here", []).append(study)
    # A difference of all studies is listed once.
    return [
        difference if len(studies) == len(old) else f"{', '.join(studies)}: {difference}"
        for difference, studies in found.items()
    ]


def _decisive(spec: SweepSpec) -> dict[str, dict[str, Any]]:
    """Collect the fields that decide which trials run and what they score, study by study."""
    fields = {study.study_name: _flat(study.search_content) for study in spec.studies}
    for own in fields.values():
        own.pop("rungs")  # which follow from fields of the search
    return fields


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts
