"""The ends of trials, which are read from the journal together with the state of the sweep."""

from unittest.mock import Mock

from lorasweep.service.ended import load_ended
from lorasweep.store import journal
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import TrialFinished, TrialStarted
from tests.folders import FAILED, sweep_folder


def append(paths, *records):
    with Journal(paths.journal, paths.lock) as writer:
        for record in records:
            writer.append(record)


def test_a_trial_that_is_tried_again_has_not_ended(tmp_path):
    paths = SweepPaths(sweep_folder(tmp_path / "mine", trials=3, ends=[FAILED]))
    records = journal.read(paths.journal)
    (failed,) = [r for r in records if isinstance(r, TrialFinished) and r.status == "FAILED"]
    sweep = load_ended(paths.root)
    assert len(sweep.ended) == len(sweep.results.trials) == 3
    assert failed in [ended.record for ended in sweep.ended]

    again = [r for r in records if isinstance(r, TrialStarted) and r.trial == failed.trial]
    append(paths, *again)
    sweep = load_ended(paths.root)
    assert failed.trial not in [ended.result.trial for ended in sweep.ended]
    assert sweep.left_out == ", without 1 that have not ended"

    end = failed.model_copy(update={"status": "COMPLETE", "error": None})
    append(paths, end)
    assert end in [ended.record for ended in load_ended(paths.root).ended]


def test_results_and_records_are_of_one_reading(tmp_path, monkeypatch):
    """Else a trial could end between two of them."""
    folder = sweep_folder(tmp_path / "mine", trials=2)
    read = Mock(side_effect=journal.read)
    monkeypatch.setattr(journal, "read", read)
    assert len(load_ended(folder).ended) == 2
    assert read.call_count == 1
