import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.analysis.pareto import POOLED, fronts, undominated
from lorasweep.store.results import TrialResult
from tests.analysis.planted import trial

PUBLISHED = Path(__file__).parent.parent / "data" / "biderman_v2.csv"
PLACE = st.integers(0, 6).map(lambda i: i / 4)


def brute_force(points):
    return {
        i
        for i, (gain, cost) in enumerate(points)
        if not any(g >= gain and c <= cost and (g, c) != (gain, cost) for g, c in points)
    }


@given(st.lists(st.tuples(PLACE, PLACE), max_size=20))
def test_front_equals_brute_force(points):
    front = undominated(points)
    assert set(front) == brute_force(points)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@pytest.mark.parametrize("setting", ["code-cpt", "math-cpt", "code-ift", "math-ift"])
def test_front_of_the_published_table_equals_brute_force(setting):
    with PUBLISHED.open() as file:
        rows = [row for row in csv.DictReader(file) if row["setting"] == setting]
    trials = [
        TrialResult(
            trial=str(i),
            method=row["method"],
            status="COMPLETE",
            seed=0,
            hyperparameters={},
            number=i,
            learning=float(row["learning"]),
            source_accuracy=float(row["source_accuracy"]),
        )
        for i, row in enumerate(rows)
    ]
    assert trials
    found = fronts(trials)
    for scope in ("lora", "full", POOLED):
        members = [t for t in trials if scope in {POOLED, t.method}]
        pairs = [(t.learning, -(t.source_accuracy or 0)) for t in members]
        expected = {members[i].trial for i in brute_force(pairs)}
        assert {p.trial for p in found if p.scope == scope} == expected


def test_trials_without_a_source_score_are_left_out():
    known = trial("a", 0.4, forgetting=0.1)
    assert [p.trial for p in fronts([known, trial("b", 0.9)]) if p.scope == POOLED] == ["a"]


def test_forgetting_is_preferred_where_some_trials_lack_it():
    known = trial("a", 0.4, forgetting=0.1)
    other = replace(trial("b", 0.9), source_accuracy=0.7)
    assert [p.trial for p in fronts([known, other]) if p.scope == POOLED] == ["a"]


def test_diverged_trials_are_on_no_front():
    assert fronts([trial("a", status="DIVERGED", forgetting=0.1)]) == ()
