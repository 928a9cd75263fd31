"""Whether a results folder may hold a sweep: it is new, or holds a part of the same sweep."""

from __future__ import annotations

from typing import Any

from lorasweep.errors import SpecError, UsageError
from lorasweep.spec.file import read_yaml
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.store.paths import SweepPaths


def check_folder(paths: SweepPaths, spec: SweepSpec) -> None:
    """Refuse a folder that holds something else; writes nothing.

    Raises:
        SpecError: the folder holds another sweep; the sentence names the difference.
        UsageError: the folder holds files that are no sweep.
    """
    if not paths.sweep.is_file():
        if paths.root.exists() and any(paths.root.iterdir()):
            raise UsageError(
                f"--out: must be a new folder or the results of this sweep, and {paths.root} holds "
                "other files; choose another"
            )
        return
    earlier = parse_sweep(read_yaml(paths.sweep))
    if earlier.search_identity != spec.search_identity:
        raise SpecError(
            [
                f"--out: {paths.root} holds the results of another sweep "
                f"({'; '.join(differences(earlier, spec)[:3])}); choose another folder"
            ]
        )


def differences(there: SweepSpec, here: SweepSpec) -> list[str]:
    """Name the fields in which two sweeps differ, those left out that change no result."""
    old, new = _flat(there.model_dump(mode="json")), _flat(here.model_dump(mode="json"))
    harmless = (
        "name",
        "question",
        "resources",
        "slots",
        "deepspeed",
        "evaluate.spectrum",
        "evaluate.allow_code_execution",
        "search.trials",
        "search.seeds",
    )
    return [
        f"{key} {old.get(key)!r} there and {new.get(key)!r} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(harmless)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts
