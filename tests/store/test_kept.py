"""What is recorded and said of the weights that are kept of the best trials."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lorasweep.store.journal import Journal
from lorasweep.store.kept import (
    best_of,
    checks_of_best,
    content_hash_of,
    describe,
    kept_folder,
    last_check,
)
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import KeptChecked
from lorasweep.store.results import load_history, load_results
from tests.folders import sweep_folder


def check(trial: str = "t", **changes: Any) -> KeptChecked:
    values: dict[str, Any] = {
        "trial": trial,
        "method": "lora",
        "status": "agrees",
        "content": "c",
        "measured": 1.25,
        "loaded": 1.25001,
        "dtype": "fp32",
        "tolerance": 1e-4,
        "wall_s": 3.0,
        "time": 2e9,
    }
    return KeptChecked(**values | changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "the kept adapter of trial t, loaded by plain PEFT, has held-out loss 1.2500 "
            "(measured 1.2500)",
        ),
        (
            {"method": "full"},
            "the kept model of trial t, loaded by plain transformers, has held-out loss 1.2500 "
            "(measured 1.2500)",
        ),
        (
            {"status": "differs", "loaded": 1.5},
            "the kept adapter of trial t is not the one that was measured: loaded by plain PEFT, "
            "it has held-out loss 1.5000, and 1.2500 was measured; rounding explains 0.0001 at "
            "most",
        ),
        (
            {"status": "differs", "loaded": float("nan"), "reason": "4 of 16 tensors arrive"},
            "the kept adapter of trial t is not the one that was measured: loaded by plain PEFT, "
            "it has held-out loss that is not finite, and 1.2500 was measured; rounding explains "
            "0.0001 at most (4 of 16 tensors arrive)",
        ),
        (
            {"status": "unloadable", "loaded": None, "reason": "header too large"},
            "the kept adapter of trial t cannot be loaded by plain PEFT (header too large)",
        ),
        (
            {"status": "unchecked", "loaded": None, "reason": "its folder is gone"},
            "the kept adapter of trial t was not checked with plain PEFT: its folder is gone",
        ),
    ],
)
def test_each_outcome_is_one_sentence(changes, sentence):
    assert describe(check(**changes)) == sentence


def test_the_hash_is_of_the_files_and_not_of_the_name_of_their_trial(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "a").write_text("weights")
    (one / "b").write_text("configuration")
    shutil.copytree(one, other)
    (other / "trial.txt").write_text("t")
    assert content_hash_of(one) == content_hash_of(other)
    (other / "a").write_text("weightS")
    assert content_hash_of(one) != content_hash_of(other)
    (other / "a").write_text("weights")
    (other / "b").rename(other / "c")
    assert content_hash_of(one) != content_hash_of(other)
    assert content_hash_of(None) == ""


def test_the_copy_of_the_best_stands_in_for_a_trial_that_was_removed(tmp_path: Path):
    paths = SweepPaths(tmp_path)
    assert kept_folder(paths, "t", "lora", "") is None
    paths.best("lora").mkdir(parents=True)
    paths.best_trial("lora").write_text("t\n")
    assert kept_folder(paths, "t", "lora", "") == paths.best("lora")
    assert kept_folder(paths, "u", "lora", "") is None
    paths.trial("t").adapter.mkdir(parents=True)
    assert kept_folder(paths, "t", "lora", "") == paths.trial("t").adapter
    assert kept_folder(paths, "t", "full", "") is None


def test_the_last_check_of_the_best_trial_counts(tmp_path: Path):
    paths = SweepPaths(sweep_folder(tmp_path / "mine", trials=4))
    spec, (results, records) = load_results(paths.root).spec, load_history(paths.root)
    assert spec is not None
    best = best_of(spec, records)
    assert best is not None
    assert best.winner.learning == max(trial.learning or 0 for trial in results.trials)
    winner = best.winner.trial
    other = next(trial.trial for trial in results.trials if trial.trial != winner)
    assert checks_of_best(results) == []
    first, last = check(winner, status="unchecked"), check(winner)
    with Journal(paths.journal, paths.lock) as journal:
        for record in (first, check(other), last):
            journal.append(record)
    results, records = load_history(paths.root)
    assert last_check(records, winner) == last
    assert checks_of_best(results) == [last]
