"""Check that a change leaves every trial, metric and reported number as it was.

    python benchmarks/same.py REVISION --folder FOLDER --tables TABLE.csv [TABLE.csv ...]

Runs the same sweeps and reports twice, with the code of REVISION and with the working tree, and
compares what they left: each trial's final record, times left out, bit for bit; and each number of
analysis.json. Fields may have moved or changed their names between the two, so numbers are looked
for anywhere in the other file: only a number that the other file lacks is a difference.

A sweep that has ended is not run again in the same folder, so a second call only compares.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SWEEPS = {
    "default": ["--space", "lr,targets,rank"],
    "methods": ["sweeps/testbed/methods.yaml"],
    "grid": [
        *("--space", "lr=3e-4|3e-3,rank=4|16", "--slots", "1"),
        *("--set", "search.algorithm=grid", "--set", "search.scheduler=none"),
        *("--set", "search.seeds=1"),
    ],
}
# What depends on the clock or on the run, and not on what was computed.
CLOCKED = {"time", "wall_s", "train_s", "evaluate_s", "peak_memory_bytes", "crc", "format"}
UNSTEADY = {*CLOCKED, "wall_s_spent", "wall_s_left", "schema_version"}


def check_out(revision: str, folder: Path) -> Path:
    """Clone the repository at a revision, once."""
    if not folder.is_dir():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", revision], check=True)
    return folder


def lorasweep(checkout: Path, words: list[str]) -> None:
    """Run a command with the code of one checkout.

    Raises:
        SystemExit: it failed; with the end of its standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep", *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def run_all(checkout: Path, out: Path, sweeps: list[str], tables: list[Path]) -> None:
    """Run the sweeps, then write the report of each table."""
    for name in sweeps:
        lorasweep(checkout, ["tune", *SWEEPS[name], "--out", str(out / name)])
    for table in tables:
        words = ["--table", str(table), "--space", "lr,targets,rank"]
        lorasweep(checkout, ["report", *words, "--out", str(out / table.stem)])


def trials_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Final record of each trial of a journal, by trial, without what the clock decides."""
    finals = {}
    for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["record"] == "trial":
            finals[record["trial"]] = {k: v for k, v in record.items() if k not in CLOCKED}
    return finals


def numbers_of(value: Any, path: str = "") -> Iterator[tuple[float, str]]:
    """Every number of a JSON value, with its path, but for what the clock decides."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in UNSTEADY:
                yield from numbers_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from numbers_of(item, f"{path}[]")
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value), path


def compare_trials(before: Path, after: Path) -> tuple[int, list[str]]:
    """Count the trials of two journals, and list their differences."""
    old, new = trials_of(before), trials_of(after)
    said = [f"trial {trial} is in one only" for trial in sorted({*old} ^ {*new})]
    for trial in sorted({*old} & {*new}):
        fields = {*old[trial], *new[trial]}
        said += [
            f"trial {trial}, {field}: {old[trial].get(field)!r} -> {new[trial].get(field)!r}"
            for field in sorted(fields)
            if old[trial].get(field) != new[trial].get(field)
        ]
    return len(new), said


def compare_reports(before: Path, after: Path) -> tuple[int, list[str]]:
    """Count the numbers of the earlier analysis.json, and list those that the later one lacks."""
    old, new = (
        json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
        for folder in (before, after)
    )
    there = {number for number, _ in numbers_of(new)}
    wanted = list(numbers_of(old))
    # Roundings of the last digit come from another order of additions and are no drift.
    near = sorted(there)
    lacking = [
        f"{path}: {number!r}"
        for number, path in wanted
        if number not in there and not any(math.isclose(number, n, rel_tol=1e-9) for n in near)
    ]
    return len(wanted), lacking


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="git revision whose results must not change")
    parser.add_argument("--folder", type=Path, required=True, help="where checkouts and results go")
    parser.add_argument("--sweeps", nargs="*", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help="CSV files of trials")
    arguments = parser.parse_args()
    tables = [table.resolve() for table in arguments.tables]
    out = arguments.folder.resolve() / "out"
    earlier = check_out(arguments.revision, arguments.folder.resolve() / "before")
    for checkout, side in ((earlier, "before"), (ROOT, "after")):
        run_all(checkout, out / side, arguments.sweeps, tables)
    differences = 0
    for name in arguments.sweeps:
        count, said = compare_trials(out / "before" / name, out / "after" / name)
        differences += len(said)
        print(f"{name}: {count} trials, {len(said)} differences")
        print(*(f"  {sentence}" for sentence in said), sep="\n", end="\n" if said else "")
    reports = [(name, Path(name, "report")) for name in arguments.sweeps]
    reports += [(table.stem, Path(table.stem)) for table in tables]
    for name, folder in reports:
        count, lacking = compare_reports(out / "before" / folder, out / "after" / folder)
        differences += len(lacking)
        print(f"report of {name}: {count} numbers, {len(lacking)} changed or gone")
        print(*(f"  {sentence}" for sentence in lacking), sep="\n", end="\n" if lacking else "")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
