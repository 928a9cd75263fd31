import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.errors import JournalError, SpecError, UsageError
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import (
    BaseMeasured,
    FinalStatus,
    Record,
    SessionChanged,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from lorasweep.store.results import TrialResult, fold_trials, load_results
from lorasweep.store.scores import CodeScores, Distinct, Scores

FEW = Distinct(all=1.0, passed=None, failed=1.0)
PROGRAMS = CodeScores(
    problems=1, samples=2, pass_at={"1": 0.5}, exact=FEW, whitespace=FEW, syntax=FEW
)
STATUSES: list[FinalStatus] = ["COMPLETE", "PRUNED", "DIVERGED", "FAILED"]


def started(trial: str, number: int = 0, seed: int = 0) -> TrialStarted:
    return TrialStarted(
        trial=trial,
        number=number,
        stage="search",
        seed=seed,
        configuration=LoraHyperparameters(rank=number + 1),
        time=1.0,
    )


def finished(trial: str, status: FinalStatus, number: int = 0, learning: float = 0.5) -> Record:
    return TrialFinished(
        trial=trial,
        status=status,
        number=number,
        stage="search",
        seed=0,
        configuration=LoraHyperparameters(rank=number + 1),
        learning=learning,
        time=2.0,
    )


events = st.one_of(
    st.builds(started, st.sampled_from("abc")),
    st.builds(
        finished, st.sampled_from("abc"), st.sampled_from(STATUSES), learning=st.floats(0, 1)
    ),
)
histories = st.lists(events, max_size=12)


@settings(deadline=None)
@given(histories, st.data())
def test_the_fold_is_independent_of_duplicated_lines(history, data):
    repeated = [
        record for record in history for _ in range(data.draw(st.integers(1, 3), label="times"))
    ]
    assert fold_trials(repeated) == fold_trials(history)
    assert fold_trials([*history, *history]) == fold_trials(history)


@settings(deadline=None)
@given(histories)
def test_the_fold_knows_each_trial_once_and_none_that_was_not_written(history):
    folded = fold_trials(history)
    assert sorted(result.trial for result in folded) == sorted({r.trial for r in history})


@pytest.mark.parametrize("status", ["COMPLETE", "PRUNED", "DIVERGED"])
def test_a_final_state_is_never_undone(status):
    later = [started("a"), finished("a", "FAILED"), finished("a", "COMPLETE", learning=0.9)]
    (result,) = fold_trials([started("a"), finished("a", status, learning=0.1), *later])
    assert (result.status, result.learning) == (status, 0.1)


def test_a_failed_trial_is_tried_again():
    history = [started("a"), finished("a", "FAILED")]
    assert [r.status for r in fold_trials(history)] == ["FAILED"]
    history.append(started("a"))
    assert [r.status for r in fold_trials(history)] == ["RUNNING"]
    history.append(finished("a", "COMPLETE"))
    assert [r.status for r in fold_trials(history)] == ["COMPLETE"]


def test_trials_come_in_the_order_of_the_search_and_confirmations_last():
    confirm = started("c", 0, seed=1).model_copy(update={"stage": "confirm"})
    history = [confirm, finished("b", "PRUNED", number=1), started("a", 0)]
    assert [result.trial for result in fold_trials(history)] == ["a", "b", "c"]


def test_a_result_carries_everything_that_the_record_says():
    record = TrialFinished(
        trial="a",
        status="COMPLETE",
        number=3,
        stage="confirm",
        seed=2,
        configuration=LoraHyperparameters(alpha="1r"),
        learning=0.5,
        source_accuracy=0.75,
        forgetting=0.125,
        response_loss=1.5,
        train_loss=1.25,
        tasks={"math": 0.5},
        code={"humaneval": PROGRAMS},
        steps=10,
        tokens=1000,
        wall_s=9.0,
        train_s=6.0,
        evaluate_s=2.0,
        trainable=64,
        error="none",
        time=2.0,
    )
    (result,) = fold_trials([record])
    for name in set(TrialFinished.model_fields) & set(TrialResult.model_fields):
        assert getattr(result, name) == getattr(record, name)
    assert result.method == "lora"
    assert {"method": "lora", **result.hyperparameters} == record.configuration.model_dump(
        exclude_none=True
    )


@pytest.fixture
def paths(tmp_path):
    paths = SweepPaths(tmp_path / "results")
    write_atomically(paths.sweep, dump_sweep(parse_sweep(default_sweep(None, None))))
    return paths


def test_a_results_folder_is_read_with_its_spec_base_and_sessions(paths):
    records: list[Record] = [
        SweepStarted(name="default", identity="i", data="d", time=10.0),
        SessionChanged(state="started", time=11.0, trials_planned=16, note="cut"),
        BaseMeasured(scores=Scores(source_accuracy=0.5), wall_s=1.0),
        started("a"),
        SessionChanged(state="interrupted", time=12.0),
        SessionChanged(state="started", time=13.0, trials_planned=18, note="cut"),
        finished("a", "COMPLETE"),
        SessionChanged(state="complete", time=14.0, note="limited"),
    ]
    with Journal(paths.journal, paths.lock) as journal:
        for record in records:
            journal.append(record)
    results = load_results(paths.root)
    assert results.spec == parse_sweep(default_sweep(None, None))
    assert results.name == "default"
    assert results.axes == ("lr", "targets", "rank")
    assert not results.is_factorial
    assert results.base == Scores(source_accuracy=0.5)
    assert [trial.status for trial in results.trials] == ["COMPLETE"]
    assert (results.state, results.trials_planned, results.started) == ("complete", 18, 10.0)
    assert results.notes == ("cut", "limited")
    assert results.origin == str(paths.root)


def test_a_sweep_that_has_not_begun_has_no_trials_and_no_state(paths):
    results = load_results(paths.root)
    assert results.trials == ()
    assert (results.state, results.base, results.trials_planned, results.started) == (None,) * 4


def test_a_folder_that_is_no_sweep_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"must be a results folder with a sweep\.yaml in it"):
        load_results(tmp_path)


def test_a_damaged_folder_is_refused_and_not_half_read(paths):
    paths.journal.write_text("{}\n{}\n")
    with pytest.raises(JournalError, match="line 1"):
        load_results(paths.root)
    paths.sweep.write_text("space: {}")
    with pytest.raises(SpecError):
        load_results(paths.root)
