"""Whether the weights that are kept of the best trials are those that were measured.

At the end of a sweep, a worker loads the best trial's folder with plain transformers and PEFT, none
of our engines, and measures its held-out loss again (`evaluate/kept.py`). What came of it is a
record of the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import METHODS
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import KeptChecked, Record
from lorasweep.store.results import SweepResults, fold_trials

# Of a larger file only this much is hashed, so that a finished sweep is still recognised at once.
_HASHED_BYTES = 1 << 30

# Difference between the held-out loss that was measured and that of the kept weights, in nats per
# token, up to which both are the same weights, by the dtype of the base. On CPUs it was at most
# 2e-7 in fp32 (15 families, and a real model of 135M parameters) and 0 in bf16; kernels of GPUs add
# up in another order for another batch. There a lost layer of an adapter changed the loss by some
# 3e-3 in the median, and by less where it had learned little.
TOLERANCES = {"fp32": 1e-4, "bf16": 2e-3}


def best_of(study: SweepSpec, records: Sequence[Record]) -> Best | None:
    """Find the best configuration of a study among the records of a journal."""
    trials = [trial for trial in fold_trials(records) if trial.domain == study.domain]
    found = find_best(configurations(trials))
    return next((best for best in found if best.method == study.method), None)


def kept_folder(paths: SweepPaths, trial: str, method: str, domain: str) -> Path | None:
    """Find the folder that holds a trial's weights: its own, or the copy of the best."""
    files = paths.trial(trial)
    own = files.adapter if method == "lora" else files.model
    if own.is_dir():
        return own
    name = paths.best_trial(method, domain)
    if name.is_file() and name.read_text(encoding="utf-8").strip() == trial:
        return paths.best(method, domain)
    return None


def content_hash_of(folder: Path | None) -> str:
    """Hash the files of a folder, by which a change after the check is noticed; empty without one.

    The name of its trial, which only the copy of the best has, does not count.
    """
    if folder is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        if file.name == "trial.txt":
            continue
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        with file.open("rb") as content:
            left = _HASHED_BYTES
            while left > 0 and (block := content.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()[:16]


def last_check(records: Iterable[Record], trial: str) -> KeptChecked | None:
    """Find the latest check of a trial's weights."""
    found = [r for r in records if isinstance(r, KeptChecked) and r.trial == trial]
    return found[-1] if found else None


def checks_of_best(results: SweepResults) -> list[KeptChecked]:
    """List the checks of the best trials, as far as they were made, domain by domain."""
    checks = []
    for part in results.parts:
        best = [one.winner.trial for one in find_best(configurations(part.trials))]
        made = [results.kept[trial] for trial in best if trial in results.kept]
        # Trials are in the order in which they ended, and methods have one of their own.
        checks += sorted(made, key=lambda check: METHODS.index(check.method))
    return checks


def describe(check: KeptChecked) -> str:
    """Describe in a sentence what plain transformers and PEFT made of a trial's weights."""
    what, library = ("adapter", "PEFT") if check.method == "lora" else ("model", "transformers")
    subject = f"the kept {what} of trial {check.trial}"
    if check.status == "unchecked":
        return f"{subject} was not checked with plain {library}: {check.reason}"
    if check.status == "unloadable":
        return f"{subject} cannot be loaded by plain {library} ({check.reason})"
    if check.status == "differs":
        return (
            f"{subject} is not the one that was measured: loaded by plain {library}, it has "
            f"held-out loss {_loss(check.loaded)}, and {_loss(check.measured)} was measured; "
            f"rounding explains {check.tolerance:g} at most"
            + (f" ({check.reason})" if check.reason else "")
        )
    return (
        f"{subject}, loaded by plain {library}, has held-out loss {_loss(check.loaded)} (measured "
        f"{_loss(check.measured)})"
    )


def _loss(value: float | None) -> str:
    return "that is not finite" if value is None else f"{value:.4f}"
