"""The search is a pure function of the outcomes: timing and interruption change nothing."""

import math
import random
import time
from collections.abc import Callable, Collection

import pytest
from ray.tune.search import Searcher

from lorasweep.lanes.messages import from_config
from lorasweep.spec.grid import planned_trials
from lorasweep.spec.presets import first_points
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.spec.trial import Hyperparameters, LoraHyperparameters, TrialSpec
from lorasweep.store.records import TrialFinished
from lorasweep.tune.search import OrderedSearch, build_search
from lorasweep.tune.sequence import Outcome, TrialSequence

SPACE = {"lr": "1e-4..1e-1", "targets": "attention|mlp|all", "rank": "2|8|32"}


def sweep(**search: object) -> SweepSpec:
    return parse_sweep(
        {"space": SPACE, "search": {"trials": 14, "startup_trials": 4, "confirm": 2, **search}}
    )


def score(hyperparameters: LoraHyperparameters) -> Outcome:
    """A made-up objective with a best learning rate, divergence above it and pruning below."""
    away = abs(math.log10(hyperparameters.lr) + 2.3)
    if hyperparameters.lr > 0.05:
        return Outcome("DIVERGED", None)
    if away > 1.2:
        return Outcome("PRUNED", None)
    return Outcome("COMPLETE", 1 - away / 3 - 0.01 * (hyperparameters.targets == "attention"))


def record(trial: TrialSpec, outcome: Outcome) -> TrialFinished:
    return TrialFinished(
        trial=trial.id,
        status=outcome.status,
        number=0,
        stage=trial.stage,
        seed=trial.seed,
        configuration=trial.hyperparameters,
        learning=outcome.learning,
        time=time.time(),
    )


Finals = dict[str, list[TrialFinished]]


def of_lora(hyperparameters: Hyperparameters) -> LoraHyperparameters:
    assert isinstance(hyperparameters, LoraHyperparameters)
    return hyperparameters


def run(
    spec: SweepSpec,
    pick: Callable[[list[str]], str],
    known: Finals | None = None,
    stop_after: int | None = None,
    window: int = 3,
    failing: Collection[str] = (),
) -> tuple[Finals, list[str], OrderedSearch]:
    """Drive a search as Tune does, ending the running trial that `pick` chooses.

    Returns the final records, the trials in the order of suggestion, and the search.
    """
    order = TrialSequence(window)
    search = OrderedSearch(build_search(spec, []), spec, order, known or {})
    running: dict[str, TrialSpec] = {}
    records: Finals = {trial: list(ends) for trial, ends in (known or {}).items()}
    ran: list[str] = []
    for count in range(10_000):
        config = search.suggest(f"tune-{count}")
        if isinstance(config, dict):
            trial = from_config(config).trial
            running[f"tune-{count}"] = trial
            ran.append(trial.id)
            assert len(running) <= window
            continue
        if not running:
            assert config == Searcher.FINISHED
            break
        chosen = pick(sorted(running, key=lambda name: int(name.split("-")[1])))
        trial = running.pop(chosen)
        failed = trial.id in failing
        outcome = Outcome("FAILED", None) if failed else score(of_lora(trial.hyperparameters))
        records.setdefault(trial.id, []).append(record(trial, outcome))
        search.finish(chosen, outcome)
        if stop_after is not None and len(ran) - len(running) >= stop_after:
            break
    return records, ran, search


def oldest(running: list[str]) -> str:
    return running[0]


def newest(running: list[str]) -> str:
    return running[-1]


@pytest.mark.parametrize("algorithm", ["tpe", "random", "gp"])
def test_the_order_in_which_trials_end_does_not_change_the_search(algorithm):
    # A Gaussian process takes seconds a suggestion, so it is asked for fewer.
    spec = sweep(algorithm=algorithm, trials=7 if algorithm == "gp" else 14)
    expected, _, _ = run(spec, oldest)
    for pick in (newest, random.Random(0).choice):
        assert set(run(spec, pick)[0]) == set(expected)


def test_another_seed_searches_elsewhere():
    spec = sweep()
    other = spec.model_copy(update={"seed": 1})
    assert set(run(spec, oldest)[0]) != set(run(other, oldest)[0])


@pytest.mark.parametrize("cut", [1, 4, 9, 13, 15])
def test_an_interrupted_search_goes_on_to_the_same_trials(cut):
    spec = sweep()
    whole, _, _ = run(spec, oldest)
    part, _, _ = run(spec, random.Random(cut).choice, stop_after=cut)
    rest, ran, _ = run(spec, newest, known=part)
    assert set(rest) == set(whole)
    assert not set(ran) & set(part), "a trial that had ended ran again"


def test_a_finished_search_has_nothing_left_to_run():
    spec = sweep()
    whole, _, _ = run(spec, oldest)
    _, ran, _ = run(spec, oldest, known=whole)
    assert ran == []


def searched(records: Finals) -> dict[str, str]:
    """Last status of each trial of the search."""
    return {trial: ends[-1].status for trial, ends in records.items() if ends[-1].stage == "search"}


def best(records: Finals, count: int) -> set[float]:
    ends = [ends[-1] for ends in records.values() if ends[-1].stage == "search"]
    ends.sort(key=lambda end: -(end.learning or 0.0))
    return {end.configuration.lr for end in ends[:count]}


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
@pytest.mark.parametrize("failing", [0, 4, 9])
@pytest.mark.parametrize("cut", [None, 6])
def test_a_trial_that_failed_once_and_was_run_again_adds_no_other_trial(
    algorithm: str, failing: int, cut: int | None
):
    spec = sweep(algorithm=algorithm, grid_points=3)
    whole, ran, _ = run(spec, oldest)
    victim = ran[failing]
    before, _, _ = run(spec, newest, failing=[victim])
    part: Finals | None = None
    if cut is not None:
        part, _, _ = run(spec, random.Random(cut).choice, stop_after=cut, failing=[victim])
    first, _, _ = run(spec, oldest, known=part, failing=[victim])
    assert set(first) == set(before)
    after, again, search = run(spec, random.Random(1).choice, known=first)

    assert again[0] == victim
    assert set(searched(after)) == set(searched(first))
    assert len(searched(after)) == planned_trials(spec)
    assert "FAILED" not in searched(after).values()
    if algorithm != "tpe":
        assert set(searched(after)) == set(searched(whole))
    # Nothing else runs, unless the victim turns out to be one of the best, which are confirmed.
    assert {after[trial][-1].stage for trial in again[1:]} <= {"confirm"}
    if after[victim][-1].configuration.lr not in best(after, 2):
        assert again == [victim]
    confirmed = {
        ends[-1].configuration.lr for ends in after.values() if ends[-1].stage == "confirm"
    }
    assert confirmed >= best(after, 2)
    assert search.suggest("one more") == Searcher.FINISHED
    assert run(spec, oldest, known=after)[1] == []


def test_what_fails_again_is_tried_by_the_next_session_too():
    spec = sweep(algorithm="random", confirm=0)
    _, ran, _ = run(spec, oldest)
    records: Finals = {}
    for session in range(3):
        records, tried, _ = run(spec, oldest, known=records, failing=ran[3:5])
        assert tried == (ran if session == 0 else ran[3:5])
    records, tried, _ = run(spec, oldest, known=records)
    assert tried == ran[3:5]
    assert run(spec, oldest, known=records)[1] == []


def test_confirmations_that_share_a_trunk_go_on_from_one_another():
    spec = parse_sweep(
        {
            "space": {"epochs": [1, 2, 4], "lr": [1e-3, 1e-2]},
            "train": {"schedule": "trapezoidal", "warmup_steps": 2},
            "search": {"algorithm": "grid", "scheduler": "none", "confirm": "all", "seeds": 3},
        }
    )
    _, ran, search = run(spec, newest, window=99)
    assert search._confirmations is not None
    repeated = [entry.trial for entry in search._confirmations]
    assert [(t.seed, t.hyperparameters.epochs) for t in repeated] == [
        (seed, epochs) for seed in (1, 2) for epochs in (1, 1, 2, 2, 4, 4)
    ]
    # The newest ends first, so a longer run that did not wait would have begun before the shorter.
    for trunk in {spec.trunk(trial) for trial in repeated}:
        branches = [trial.id for trial in repeated if spec.trunk(trial) == trunk]
        assert branches == [trial for trial in ran if trial in branches]
        assert len(branches) == 3


def test_a_confirmation_waits_for_the_shorter_one_of_its_trunk():
    spec = parse_sweep(
        {
            "space": {"epochs": [1, 2]},
            "hyperparameters": {"lr": 5e-3},
            "train": {"schedule": "trapezoidal", "warmup_steps": 2},
            "search": {"algorithm": "grid", "scheduler": "none", "confirm": "all", "seeds": 2},
        }
    )
    known = {trial: ends for trial, ends in run(spec, oldest)[0].items() if ends[0].seed == 0}
    search = OrderedSearch(build_search(spec, []), spec, TrialSequence(9), known)
    assert from_config(search.suggest("a")).trial.hyperparameters.epochs == 1
    assert search.suggest("b") is None
    search.finish("a", Outcome("COMPLETE", 0.5))
    assert from_config(search.suggest("b")).trial.hyperparameters.epochs == 2
    assert search.suggest("c") == Searcher.FINISHED


def test_a_longer_search_begins_with_the_shorter_one():
    short, _, _ = run(sweep(trials=8, confirm=0), oldest)
    long, _, _ = run(sweep(trials=12, confirm=0), oldest)
    assert set(short) < set(long)


def test_the_best_configurations_are_confirmed_on_further_seeds():
    spec = sweep(confirm=2, seeds=3)
    records, _, _ = run(spec, oldest)
    ends = [ends[-1] for ends in records.values()]
    searched = [r for r in ends if r.stage == "search" and r.learning is not None]
    best = sorted(searched, key=lambda r: -(r.learning or 0))[:2]
    confirmed = [r for r in ends if r.stage == "confirm"]
    assert sorted((r.configuration.lr, r.seed) for r in confirmed) == sorted(
        (b.configuration.lr, seed) for b in best for seed in (1, 2)
    )


def test_a_grid_runs_every_combination_once():
    spec = sweep(algorithm="grid", grid_points=3, confirm=0)
    records, ran, _ = run(spec, newest)
    assert planned_trials(spec) == 27
    assert len(records) == len(ran) == 27
    chosen = [of_lora(ends[-1].configuration) for ends in records.values()]
    seen = {(c.lr, c.targets, c.rank) for c in chosen}
    assert len(seen) == 27


def test_a_configuration_suggested_twice_is_trained_once():
    spec = parse_sweep(
        {"space": {"targets": "all|mlp", "rank": "2|4"}, "search": {"trials": 20, "confirm": 0}}
    )
    records, ran, _ = run(spec, oldest)
    assert len(ran) == len(set(ran)) == len(records) <= 4


def test_tpe_learns_from_outcomes_and_turns_away_from_divergence():
    spec = sweep(trials=40, startup_trials=8, confirm=0)
    _, ran, search = run(spec, oldest, window=1)
    late = [entry for entry in search._sequence.entries[20:] if entry.outcome]
    good = [e for e in late if e.outcome is not None and e.outcome.status == "COMPLETE"]
    assert len(ran) == 40
    assert len(good) > 0.7 * len(late)


def test_published_recipes_come_first():
    spec = sweep(first_points=("thinking-machines",))
    points = first_points(spec, hidden_size=2000, model_type="llama")
    search = OrderedSearch(build_search(spec, points), spec, TrialSequence(2), {})
    first = of_lora(from_config(search.suggest("a")).trial.hyperparameters)
    assert first.lr == pytest.approx(5e-4)
    assert (first.targets, first.rank) == ("all", 32)


@pytest.mark.parametrize("word", ["a report", "an end"])
def test_what_finds_no_slot_yet_begins_when_the_first_trial_has_been_heard_of(word: str):
    spec = parse_sweep({"space": {"lr": True}, "search": {"algorithm": "random", "trials": 6}})
    search = OrderedSearch(build_search(spec, []), spec, TrialSequence(5), {})
    search.limit_at_first(2)
    assert search.suggest("a")
    assert search.suggest("b")
    assert search.suggest("c") is None
    if word == "a report":
        search.on_trial_result("a", {})
    else:
        search.finish("a", Outcome("FAILED", None))
    assert search.suggest("c")
    assert search.suggest("d")
