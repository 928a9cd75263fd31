import itertools
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.analysis.scale import scales
from lorasweep.analysis.sensitivity import importance
from lorasweep.analysis.sensitivity.anova import is_factorial, main_effect_shares, pair_shares
from lorasweep.analysis.sensitivity.importance import rank_hyperparameters
from lorasweep.store.configurations import configurations
from tests.analysis.planted import LRS, RANKS, TARGETS, planted_grid, planted_sample, sweep, trial


def rank(results):
    return rank_hyperparameters(
        "lora", configurations(results.trials), scales(results, results.trials)
    )


def with_levels(result, **levels):
    return result.model_copy(update={"hyperparameters": {**result.hyperparameters, **levels}})


def renamed(results):
    names = {"attention": "zeta", "mlp": "alpha", "all": "mu"}
    return replace(
        results,
        trials=tuple(
            with_levels(t, targets=names[t.hyperparameters["targets"]]) for t in results.trials
        ),
    )


def shuffled(results):
    trials = list(results.trials)
    random.Random(5).shuffle(trials)
    return replace(results, trials=tuple(trials))


def numbers(ranking):
    """Flatten all numbers of a ranking for approx."""
    return {
        f"{row.hyperparameter}.{name}": getattr(row, name)
        for row in ranking.rows
        for name in (
            *("importance", "low", "high", "rank", "rank_probability", "chance", "above_next"),
            *("effect", "effect_low", "effect_high"),
        )
    }


@pytest.fixture
def quick(monkeypatch):
    """Redraw little where only the kind of answer matters."""
    monkeypatch.setattr(importance, "_effort", lambda _: (12, 2, 4))
    monkeypatch.setattr(importance, "_FULL_TREES", 8)


def test_a_grid_gives_the_closed_form_shares():
    ranking = rank(planted_grid(lr=0.1, targets=0.05, rank=0.02))
    total = 0.1**2 + 0.05**2 + 0.02**2
    assert ranking.design == "anova"
    assert [row.hyperparameter for row in ranking.rows] == ["lr", "targets", "rank"]
    assert [row.importance for row in ranking.rows] == pytest.approx(
        [0.1**2 / total, 0.05**2 / total, 0.02**2 / total]
    )
    assert [row.rank for row in ranking.rows] == [1, 2, 3]
    assert [row.effect for row in ranking.rows] == pytest.approx([0.2, 0.1, 0.04])
    assert ranking.unexplained == pytest.approx(0, abs=1e-9)
    assert all(row.above_chance and row.rank_probability == 1 for row in ranking.rows)


def test_an_interaction_belongs_to_no_main_effect():
    codes = np.array([[i, j] for i in range(2) for j in range(2)])
    shares = main_effect_shares(codes, np.array([0.0, 1.0, 1.0, 0.0]))
    assert shares == pytest.approx(np.zeros(2))


def test_a_sample_gives_the_planted_order(monkeypatch):
    monkeypatch.setattr(importance, "_effort", lambda _: (40, 8, 64))
    ranking = rank(planted_sample(24, lr=0.2, targets=0.1, rank=0.02))
    assert ranking.design == "functional anova"
    assert [row.hyperparameter for row in ranking.rows] == ["lr", "targets", "rank"]
    lr, targets, _ = ranking.rows
    assert lr.rank == 1
    assert lr.above_chance
    assert targets.above_chance
    assert lr.low <= lr.importance <= lr.high
    assert lr.effect == pytest.approx(0.2 * 4 / 3, abs=0.08)


@pytest.mark.parametrize("make", [planted_grid, lambda **k: planted_sample(12, **k)])
def test_noise_gives_no_ranking(make, monkeypatch):
    monkeypatch.setattr(importance, "_effort", lambda _: (40, 8, 64))
    ranking = rank(make(lr=0, targets=0, rank=0, noise=0.1, seed=3))
    assert not any(row.above_chance for row in ranking.rows)
    assert {row.rank for row in ranking.rows} == {1}
    assert all(len(row.tied_with) == 2 for row in ranking.rows)


def test_noise_on_grids_is_hardly_ever_taken_for_an_effect():
    alarms = sum(
        any(row.above_chance for row in rank(planted_grid(0, 0, 0, noise=0.1, seed=seed)).rows)
        for seed in range(25)
    )
    assert alarms <= 4  # 5% are meant; above 4 of 25 has odds of 1 in 140


def test_equal_effects_tie():
    trials = [
        trial(
            f"t{i}{j}{k}",
            0.1 * i + 0.1 * j + 0.04 * ((i + j + k) % 3),
            lr=LRS[i],
            targets=TARGETS[j],
            rank=RANKS[k],
        )
        for i, j, k in itertools.product(range(3), repeat=3)
    ]
    rows = {row.hyperparameter: row for row in rank(sweep(trials)).rows}
    assert rows["lr"].importance == pytest.approx(rows["targets"].importance)
    assert rows["lr"].tied_with == ("targets",)
    assert rows["lr"].rank == rows["targets"].rank == 1
    assert rows["rank"].rank == 3
    assert not rows["rank"].above_chance


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("make", [planted_grid, lambda **k: planted_sample(16, **k)])
def test_names_and_order_play_no_part(make):
    results = make(noise=0.02)
    expected = numbers(rank(results))
    assert numbers(rank(renamed(shuffled(results)))) == expected


def test_a_row_that_stands_there_twice_counts_once():
    results = planted_grid(noise=0.02)
    twice = replace(results, trials=results.trials + results.trials[:9])
    assert numbers(rank(twice)) == numbers(rank(results))


def test_seeds_that_disagree_narrow_the_intervals():
    results = planted_grid(noise=0.02)
    draw = random.Random(1)
    again = tuple(
        t.model_copy(
            update={
                "trial": f"{t.trial}-{seed}",
                "seed": seed,
                "learning": t.learning + draw.gauss(0, 0.02),
            }
        )
        for t in results.trials
        for seed in (1, 2)
    )
    one, three = rank(results), rank(replace(results, trials=results.trials + again))
    width = [row.high - row.low for row in one.rows]
    assert sum(row.high - row.low for row in three.rows) < 0.8 * sum(width)


def test_a_pair_of_a_grid_has_its_closed_form_share():
    codes = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)])
    scores = 1.0 * codes[:, 0] + 0.5 * (codes[:, 0] == codes[:, 1])
    assert pair_shares(codes, scores) == pytest.approx([0.2, 0, 0])  # of 0 x 1, 0 x 2, 1 x 2
    assert main_effect_shares(codes, scores) == pytest.approx([0.8, 0, 0])


def test_a_pair_is_told_from_noise():
    draw = random.Random(2)
    results = sweep(
        t.model_copy(update={"learning": t.learning + 0.2 * (t.hyperparameters == conditional(t))})
        for t in planted_grid(lr=0.05, targets=0.05, rank=0.0).trials
    )
    noisy = replace(
        results,
        trials=tuple(
            t.model_copy(update={"learning": t.learning + draw.gauss(0, 0.01)})
            for t in results.trials
        ),
    )
    first, *others = rank(noisy).interactions
    assert set(first.hyperparameters) == {"lr", "targets"}
    assert first.above_chance
    assert first.low <= first.importance <= first.high
    assert not any(pair.above_chance for pair in others)


def conditional(result):
    """Pick the levels themselves where learning rate and targets meet, else nothing."""
    levels = result.hyperparameters
    return levels if levels["lr"] == LRS[2] and levels["targets"] == TARGETS[2] else None


def test_a_pair_without_replicates_is_not_told_from_noise():
    trials = [
        trial(f"t{i}{j}", 0.1 * i * j, lr=LRS[i], rank=RANKS[j])
        for i, j in itertools.product(range(3), repeat=2)
    ]
    (pair,) = rank(sweep(trials, axes=("lr", "rank"))).interactions
    assert pair.importance > 0
    assert pair.low == 0
    assert not pair.above_chance


def test_a_share_of_a_fifth_is_seen_with_enough_trials_only():
    # Shares of 0.6, 0.2 and 0.2 of noise, and a hyperparameter without effect.
    how = {"lr": 0.3, "targets": math.sqrt(0.09 * (4 / 12) / 3 * (3 / 2)), "rank": 0.0}
    noise = math.sqrt(0.01)
    few, many = (rank(planted_sample(n, **how, noise=noise, seed=4)) for n in (9, 80))
    seen = {row.hyperparameter: row for row in many.rows}
    assert seen["targets"].above_chance
    assert seen["targets"].low <= 0.2 <= seen["targets"].high
    assert not {row.hyperparameter: row for row in few.rows}["targets"].above_chance


def test_what_moves_together_shares_a_place():
    trials = [
        trial(f"t{i}{j}", 0.1 * i + 0.02 * j, lr=LRS[i], rank=RANKS[j], alpha=2.0 * RANKS[j])
        for i, j in itertools.product(range(3), repeat=2)
    ]
    ranking = rank(sweep(trials, axes=("lr", "rank", "alpha")))
    assert [row.hyperparameter for row in ranking.rows] == ["lr", "rank"]
    assert "alpha changed only together with rank" in (ranking.reason or "")


def test_seeds_of_a_configuration_count_once():
    results = planted_grid(noise=0.02)
    twice = [
        *results.trials,
        *(t.model_copy(update={"trial": f"{t.trial}b", "seed": 1}) for t in results.trials),
    ]
    doubled = numbers(rank(replace(results, trials=tuple(twice))))
    assert doubled == pytest.approx(numbers(rank(results)))


def test_a_level_that_always_diverged_leaves_a_smaller_factorial():
    results = planted_grid()
    trials = [
        t.model_copy(update={"status": "DIVERGED", "learning": None})
        if t.hyperparameters["lr"] == 1e-3
        else t
        for t in results.trials
    ]
    ranking = rank(replace(results, trials=tuple(trials)))
    assert ranking.design == "anova"
    assert ranking.configurations == 18


@pytest.mark.usefixtures("quick")
def test_a_factorial_with_a_hole_is_sampled():
    results = planted_grid(noise=0.01)
    assert rank(replace(results, trials=results.trials[:-1])).design == "functional anova"


def test_too_few_trials_are_no_evidence():
    ranking = rank(planted_sample(7))
    assert ranking.design == "none"
    assert ranking.rows == ()
    assert "7 completed configurations, and 8 are needed" in (ranking.reason or "")


def test_equal_scores_are_no_evidence():
    ranking = rank(planted_grid(0, 0, 0))
    assert ranking.reason == "not enough evidence: all scores are the same"


@pytest.mark.usefixtures("quick")
def test_a_single_axis_has_a_cost_and_nothing_to_rank_it_against():
    trials = [trial(f"t{i}", 0.3 + 0.1 * i, number=i, lr=10.0 ** (i - 5)) for i in range(4)]
    ranking = rank(sweep(trials, axes=("lr",)))
    assert ranking.rows[0].importance == pytest.approx(1)
    assert ranking.rows[0].effect == pytest.approx(0.3)
    assert "nothing to rank" in (ranking.reason or "")


def test_running_and_pruned_trials_are_left_out():
    results = planted_grid(noise=0.02)
    others = (
        trial("x", status="PRUNED", lr=1e-5, targets="all", rank=4),
        trial("y", status="RUNNING", lr=1e-5, targets="all", rank=4),
    )
    assert numbers(rank(replace(results, trials=results.trials + others))) == numbers(rank(results))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=12, max_size=12))
def test_shares_of_a_grid_are_shares(scores):
    codes = np.array([[i, j] for i in range(3) for j in range(4)])
    assert is_factorial(codes)
    shares = main_effect_shares(codes, np.array(scores))
    assert np.all(shares >= 0)
    assert math.fsum(shares) <= 1 + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 0.2), st.floats(0, 0.2))
def test_every_ranking_is_in_order_and_bounded(seed, lr, noise):
    rows = rank(planted_grid(lr=lr, noise=noise, seed=seed)).rows
    assert [r.importance for r in rows] == sorted((r.importance for r in rows), reverse=True)
    assert sum(r.importance for r in rows) <= 1 + 1e-9
    for row in rows:
        assert 0 <= row.low <= row.importance <= row.high <= 1
        assert 0 <= row.effect_low <= row.effect <= row.effect_high
        assert 1 <= row.rank <= 3


def test_importing_the_analysis_brings_no_heavy_library():
    code = (
        "import sys; import lorasweep.analysis.analyse, lorasweep.report.render; "
        "print({'torch','ray','transformers','optuna','sklearn','matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
