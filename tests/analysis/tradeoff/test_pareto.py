import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.analysis.evidence import collect
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.tradeoff.pareto import (
    POOLED,
    contenders,
    fronts,
    may_be_beaten,
    surely_beaten,
    undominated,
)
from lorasweep.store.configurations import configurations
from tests.analysis.planted import sweep, trial
from tests.analysis.published import SETTINGS, setting

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


@given(st.lists(st.tuples(PLACE, PLACE), min_size=1, max_size=20))
def test_without_noise_the_front_is_certain_and_all_others_are_surely_beaten(points):
    places, front = np.array(points, dtype=float), undominated(points)
    assert not may_be_beaten(places, front, (0.0, 0.0)).any()
    assert set(np.flatnonzero(~surely_beaten(places, front, (0.0, 0.0)))) == brute_force(points)


@given(st.lists(st.tuples(PLACE, PLACE), min_size=1, max_size=20), PLACE, PLACE)
def test_dominance_beyond_noise_equals_brute_force(points, gain_margin, cost_margin):
    places, front = np.array(points, dtype=float), undominated(points)
    beaten = {
        i
        for i, (gain, cost) in enumerate(points)
        if any(
            g >= gain + gain_margin and c <= cost - cost_margin and (g, c) != (gain, cost)
            for g, c in points
        )
    }
    margins = (gain_margin, cost_margin)
    assert set(np.flatnonzero(surely_beaten(places, front, margins))) == beaten
    if gain_margin and cost_margin:
        unsure = {
            i
            for i in front
            if any(
                points[j][0] >= points[i][0] - gain_margin
                and points[j][1] <= points[i][1] + cost_margin
                for j in range(len(points))
                if j != i
            )
        }
        found = may_be_beaten(places, front, margins)
        assert {i for i, own in zip(front, found, strict=True) if own} == unsure


@pytest.mark.parametrize("name", SETTINGS)
def test_front_of_the_published_table_equals_brute_force(name):
    trials = setting(name).trials
    found = fronts(trials)
    for scope in ("lora", "full", POOLED):
        members = [t for t in trials if scope in {POOLED, t.method}]
        pairs = [(t.learning, -(t.source_accuracy or 0)) for t in members]
        expected = {members[i].trial for i in brute_force(pairs)}
        assert {p.trial for p in found if p.scope == scope} == expected


def test_no_full_finetuning_survives_on_the_pooled_front_of_code_instructions():
    pooled = [p for p in fronts(setting("code-ift").trials) if p.scope == POOLED]
    assert {p.method for p in pooled} == {"lora"}
    assert pooled[-1].learning == 0.498


def noisy(learning, cost):
    return {
        "learning": Noise(sd=learning, df=50, basis="seeds"),
        "forgetting": Noise(sd=cost, df=50, basis="seeds"),
    }


def test_a_lead_within_the_noise_is_not_certain():
    near = [trial("a", 0.50, forgetting=0.10), trial("b", 0.51, forgetting=0.105)]
    found = {p.trial: p.certain for p in fronts(near, noisy(0.01, 0.01)) if p.scope == POOLED}
    assert found == {"a": False, "b": False}
    found = {p.trial: p.certain for p in fronts(near, noisy(1e-4, 1e-4)) if p.scope == POOLED}
    assert found == {"a": True, "b": True}
    assert {p.certain for p in fronts(near)} == {None}


def test_a_trial_that_noise_alone_keeps_from_the_front_is_a_contender():
    trials = [
        trial("best", 0.50, forgetting=0.10),
        trial("close", 0.49, forgetting=0.11),
        trial("far", 0.30, forgetting=0.30),
    ]
    found = {row.scope: row for row in contenders(trials, noisy(0.01, 0.01))}
    assert (found[POOLED].n, found[POOLED].trials) == (1, ("close",))
    assert {row.n for row in contenders(trials, noisy(0.0, 0.0))} == {0}


def test_noise_is_taken_from_seeds_and_rounding_from_digits():
    trials = [
        trial(f"t{i}{seed}", 0.5 + 0.1 * i + 0.02 * seed, rank=i, seed=seed, forgetting=0.125)
        for i in range(3)
        for seed in range(2)
    ]
    noise = collect(sweep(trials), configurations(trials), {}).noise
    assert noise["learning"].basis == "seeds"
    assert noise["learning"].df == 3
    assert noise["learning"].sd == pytest.approx(0.02 / 2**0.5)
    assert noise["learning"].rounding == 0.01
    assert noise["forgetting"].sd == 0
    again = [
        *trials,
        trials[0].model_copy(update={"trial": "again"}),
    ]  # the same seed tells nothing of noise
    assert collect(sweep(again), configurations(again), {}).noise["learning"].df == 3


def test_trials_without_a_source_score_are_left_out():
    known = trial("a", 0.4, forgetting=0.1)
    assert [p.trial for p in fronts([known, trial("b", 0.9)]) if p.scope == POOLED] == ["a"]


def test_forgetting_is_preferred_where_some_trials_lack_it():
    known = trial("a", 0.4, forgetting=0.1)
    other = trial("b", 0.9).model_copy(update={"source_accuracy": 0.7})
    assert [p.trial for p in fronts([known, other]) if p.scope == POOLED] == ["a"]


def test_diverged_trials_are_on_no_front():
    assert fronts([trial("a", status="DIVERGED", forgetting=0.1)]) == ()
