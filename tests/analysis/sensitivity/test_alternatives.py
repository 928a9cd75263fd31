import itertools
import json
import random
from dataclasses import replace

import pytest

from lorasweep.analysis.scale import scales
from lorasweep.analysis.sensitivity.alpha_rules import alpha_rules, rank_within_alpha_rules
from lorasweep.analysis.sensitivity.alternatives import compare_levels
from lorasweep.analysis.sensitivity.divergence import summarise_divergence
from lorasweep.analysis.sensitivity.importance import rank_hyperparameters
from lorasweep.analysis.sensitivity.top import rank_near_top
from lorasweep.store.configurations import configurations
from tests.analysis.planted import LRS, RANKS, TARGETS, planted_grid, planted_sample, sweep, trial
from tests.analysis.sensitivity.test_importance import renamed, shuffled


def layout(results):
    return configurations(results.trials), scales(results, results.trials)


def compare(results):
    return {row.hyperparameter: row for row in compare_levels(*layout(results))}


def test_a_grid_without_noise_gives_the_best_over_the_others():
    lr = compare(planted_grid(lr=0.1, targets=0.05, rank=0.02))["lr"]
    assert [level.best for level in lr.levels] == pytest.approx([0.34, 0.44, 0.54])
    assert [level.behind for level in lr.levels] == pytest.approx([0.2, 0.1, 0.0])
    assert (lr.spread, lr.low, lr.high) == pytest.approx((0.2, 0.2, 0.2))
    assert (lr.alternatives, lr.others) == (0, 2)
    assert compare(planted_grid(lr=0.02, targets=0, rank=0.1))["lr"].alternatives == 2


def test_a_level_that_only_diverged_is_no_alternative():
    trials = [trial(f"t{i}", 0.5 - 0.01 * i, lr=lr, rank=4) for i, lr in enumerate(LRS)]
    trials.append(trial("x", status="DIVERGED", lr=1e-2, rank=4))
    lr = compare(sweep(trials))["lr"]
    assert (lr.alternatives, lr.others) == (2, 3)
    assert lr.levels[-1].is_close is False


def test_intervals_hold_the_estimate_and_names_play_no_part():
    results = planted_grid(noise=0.03)
    for row in compare(results).values():
        assert row.low <= row.spread <= row.high
        assert row.alternatives_low <= row.alternatives <= row.alternatives_high
        assert all(level.low <= level.behind <= level.high for level in row.levels)
    other = compare(renamed(shuffled(results)))
    assert other["lr"] == compare(results)["lr"]


def test_a_best_that_stands_alone_and_one_of_many_are_told_without_luck():
    """At one rank a single setting is best, at the others three tie and the luckiest stands out."""
    held = []
    for seed in range(12):
        draw = random.Random(seed)
        results = sweep(
            trial(
                f"t{i}{j}{k}",
                0.3 + 0.1 * i + 0.1 * k * (j == 2) + draw.gauss(0, 0.05),
                lr=LRS[i],
                targets=TARGETS[j],
                rank=RANKS[k],
            )
            for i, j, k in itertools.product(range(3), repeat=3)
        )
        rank = compare(results)["rank"]
        held.append(rank.low <= 0.2 <= rank.high)
        assert rank.high - rank.low < 0.35
    assert sum(held) >= 8  # 10 or 11 are meant, and fewer than 8 have odds of 1 in 200


def alpha_sweep(noise=0.01):
    """Make a grid in which rank matters where alpha follows it, and not where alpha is fixed."""
    draw = random.Random(1)
    return sweep(
        (
            trial(
                f"t{i}{j}{alpha}",
                0.3 + 0.05 * i + (0.1 * j if alpha == "2r" else 0.0) + draw.gauss(0, noise),
                lr=LRS[i],
                rank=RANKS[j],
                alpha=alpha,
            )
            for i, j in itertools.product(range(3), repeat=2)
            for alpha in (32.0, "2r")
        ),
        axes=("lr", "rank", "alpha"),
    )


def test_rank_matters_under_the_rule_that_lets_it():
    grouped, laid_out = layout(alpha_sweep())
    fixed, times = rank_within_alpha_rules("lora", grouped, laid_out)
    assert (fixed.rule, times.rule) == ("fixed", "times rank")
    assert fixed.ranking.rows[0].hyperparameter == "lr"
    assert not {r.hyperparameter: r for r in fixed.ranking.rows}["rank"].above_chance
    assert times.ranking.rows[0].hyperparameter == "rank"
    assert times.ranking.rows[0].above_chance


def test_alpha_in_numbers_that_follow_the_rank_is_a_multiple():
    results = sweep(trial(f"t{r}", rank=r, alpha=2.0 * r) for r in RANKS)
    assert set(alpha_rules(configurations(results.trials))) == {"times rank"}
    mixed = sweep(trial(f"t{r}", rank=r, alpha=32.0) for r in RANKS)
    assert set(alpha_rules(configurations(mixed.trials))) == {"fixed"}


def test_what_matters_near_the_top():
    results = planted_sample(80, lr=0.2, targets=0.05, rank=0.0, noise=0.02)
    found = rank_near_top("lora", *layout(results))
    assert found.rows[0].hyperparameter == "lr"
    assert found.rows[0].above_chance
    assert sum(row.importance for row in found.rows) == pytest.approx(1)
    assert all(row.low <= row.importance <= row.high for row in found.rows)
    again = rank_near_top("lora", *layout(renamed(shuffled(results))))
    assert again == found


def test_noise_and_few_trials_show_nothing_near_the_top():
    noise = rank_near_top("lora", *layout(planted_sample(40, 0, 0, 0, noise=0.1, seed=2)))
    assert not any(row.above_chance for row in noise.rows)
    few = rank_near_top("lora", *layout(planted_sample(12)))
    assert few.rows == ()
    assert "20 are needed" in (few.reason or "")


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial("a", lr=1e-4, rank=4)],
        [trial(f"t{i}", 0.1 * i, seed=i, lr=1e-4, rank=4) for i in range(12)],
        [trial(f"t{i}", status="DIVERGED", lr=10.0**-i, rank=4) for i in range(12)],
        [trial(f"t{i}", 0.5, lr=10.0 ** (-i / 8), rank=RANKS[i % 3]) for i in range(30)],
        [trial(f"t{i}", 0.1 * (i < 3), lr=10.0 ** (-i / 8), rank=RANKS[i % 3]) for i in range(30)],
        [trial(f"t{i}", -0.5 - i / 99, lr=10.0 ** (-i / 8), rank=4) for i in range(30)],
        [trial(f"t{i}", i / 30, lr=10.0 ** (-i / 8), rank=i + 1) for i in range(30)],
    ],
)
def test_poor_tables_are_answered_without_exception_or_nan(trials):
    results = sweep(trials, axes=("lr", "rank"))
    grouped, laid_out = layout(results)
    answers = [
        rank_hyperparameters("lora", grouped, laid_out).model_dump(),
        rank_near_top("lora", grouped, laid_out).model_dump(),
        [row.model_dump() for row in compare_levels(grouped, laid_out)],
        summarise_divergence(results.trials, laid_out).model_dump(),
        [row.model_dump() for row in rank_within_alpha_rules("lora", grouped, laid_out)],
    ]
    json.dumps(answers, allow_nan=False)


def test_an_identical_row_changes_nothing():
    results = planted_grid(noise=0.03)
    assert compare(replace(results, trials=results.trials * 2)) == compare(results)
