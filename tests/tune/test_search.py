"""The search is a pure function of the outcomes: timing and interruption change nothing."""

import math
import random
import time
from collections.abc import Callable

import pytest
from ray.tune.search import Searcher

from lorasweep.spec.presets import first_points
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.spec.trial import Hyperparameters, LoraHyperparameters, TrialSpec
from lorasweep.store.records import TrialFinished
from lorasweep.tune.order import Order, Outcome
from lorasweep.tune.search import OrderedSearch, build_search, planned_trials

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


def of_lora(hyperparameters: Hyperparameters) -> LoraHyperparameters:
    assert isinstance(hyperparameters, LoraHyperparameters)
    return hyperparameters


def run(
    spec: SweepSpec,
    pick: Callable[[list[str]], str],
    known: dict[str, TrialFinished] | None = None,
    stop_after: int | None = None,
    window: int = 3,
) -> tuple[dict[str, TrialFinished], list[str], OrderedSearch]:
    """Drive a search as Tune does, ending the running trial that `pick` chooses.

    Returns the final records, the trials in the order of suggestion, and the search.
    """
    order = Order(window)
    search = OrderedSearch(build_search(spec, []), spec, order, known or {})
    running: dict[str, TrialSpec] = {}
    records: dict[str, TrialFinished] = dict(known or {})
    ran: list[str] = []
    for count in range(10_000):
        config = search.suggest(f"tune-{count}")
        if isinstance(config, dict):
            trial = TrialSpec.model_validate(config["trial"])
            running[f"tune-{count}"] = trial
            ran.append(trial.id)
            assert len(running) <= window
            continue
        if not running:
            assert config == Searcher.FINISHED
            break
        chosen = pick(sorted(running, key=lambda name: int(name.split("-")[1])))
        trial = running.pop(chosen)
        outcome = score(of_lora(trial.hyperparameters))
        records[trial.id] = record(trial, outcome)
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


def test_a_longer_search_begins_with_the_shorter_one():
    short, _, _ = run(sweep(trials=8, confirm=0), oldest)
    long, _, _ = run(sweep(trials=12, confirm=0), oldest)
    assert set(short) < set(long)


def test_the_best_configurations_are_confirmed_on_further_seeds():
    spec = sweep(confirm=2, seeds=3)
    records, _, _ = run(spec, oldest)
    searched = [r for r in records.values() if r.stage == "search" and r.learning is not None]
    best = sorted(searched, key=lambda r: -(r.learning or 0))[:2]
    confirmed = [r for r in records.values() if r.stage == "confirm"]
    assert sorted((r.configuration.lr, r.seed) for r in confirmed) == sorted(
        (b.configuration.lr, seed) for b in best for seed in (1, 2)
    )


def test_a_grid_runs_every_combination_once():
    spec = sweep(algorithm="grid", grid_points=3, confirm=0)
    records, ran, _ = run(spec, newest)
    assert planned_trials(spec) == 27
    assert len(records) == len(ran) == 27
    seen = {(c.lr, c.targets, c.rank) for c in (of_lora(r.configuration) for r in records.values())}
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
    late = [entry for entry in search._order.entries[20:] if entry.outcome]
    good = [e for e in late if e.outcome is not None and e.outcome.status == "COMPLETE"]
    assert len(ran) == 40
    assert len(good) > 0.7 * len(late)


def test_published_recipes_come_first():
    spec = sweep(first_points=("thinking-machines",))
    points = first_points(spec, hidden_size=2000, model_type="llama")
    search = OrderedSearch(build_search(spec, points), spec, Order(2), {})
    first = of_lora(TrialSpec.model_validate(search.suggest("a")["trial"]).hyperparameters)
    assert first.lr == pytest.approx(5e-4)
    assert (first.targets, first.rank) == ("all", 32)


@pytest.mark.parametrize("word", ["a report", "an end"])
def test_what_finds_no_slot_yet_begins_when_the_first_trial_has_been_heard_of(word: str):
    spec = parse_sweep({"space": {"lr": True}, "search": {"algorithm": "random", "trials": 6}})
    search = OrderedSearch(build_search(spec, []), spec, Order(5), {})
    search.hold(2)
    assert search.suggest("a")
    assert search.suggest("b")
    assert search.suggest("c") is None
    if word == "a report":
        search.on_trial_result("a", {})
    else:
        search.finish("a", Outcome("FAILED", None))
    assert search.suggest("c")
    assert search.suggest("d")
