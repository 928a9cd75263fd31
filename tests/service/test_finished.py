"""The ends of trials, which are read from the journal together with the state of the sweep."""

from unittest.mock import Mock

from lorasweep.service.finished import load_finished
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
    sweep = load_finished(paths.root)
    assert len(sweep.trials) == len(sweep.results.trials) == 3
    assert failed in [trial.record for trial in sweep.trials]

    again = [r for r in records if isinstance(r, TrialStarted) and r.trial == failed.trial]
    append(paths, *again)
    sweep = load_finished(paths.root)
    assert failed.trial not in [trial.result.trial for trial in sweep.trials]
    assert sweep.left_out == ", without 1 unfinished trial"

    end = failed.model_copy(update={"status": "COMPLETE", "error": None})
    append(paths, end)
    assert end in [trial.record for trial in load_finished(paths.root).trials]


def test_results_and_records_are_of_one_reading(tmp_path, monkeypatch):
    """With two readings, a trial could end in between."""
    folder = sweep_folder(tmp_path / "mine", trials=2)
    read = Mock(side_effect=journal.read)
    monkeypatch.setattr(journal, "read", read)
    assert len(load_finished(folder).trials) == 2
    assert read.call_count == 1
