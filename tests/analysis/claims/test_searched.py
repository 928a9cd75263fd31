"""Comparisons of searched methods allow for what their searches may still gain."""

import numpy as np
import pytest

from benchmarks.searches import ON_LEVELS, judge_levels, judge_methods, lora_score, search_trials
from lorasweep.analysis.claims import judge_claims
from lorasweep.analysis.claims.compare import contrast_methods
from lorasweep.analysis.claims.searched import is_chosen
from lorasweep.analysis.claims.verdict import FAILS, HOLDS, UNSURE
from lorasweep.analysis.evidence import collect
from lorasweep.analysis.intervals import AsFound, Estimate, Unfinished, difference
from lorasweep.store.configurations import configurations
from tests.analysis.worlds import World, full_trials, lora_trials, sweep

TABLES = 40


def searched(n=20, gap=0.0, seed=0, confirm=2):
    """Search both methods at random; full finetuning's best is ahead by the gap."""
    rng, how = np.random.default_rng(seed), (n, 0.01, False, confirm)
    lora = search_trials("lora", lambda p: lora_score("parabola", p), 0.1, how, rng)
    full = search_trials("full", lambda p: 0.6 + gap - 0.06 * (p[0] - 0.9) ** 2, 0.1, how, rng)
    return [*lora, *full]


def look(trials):
    results = sweep(trials)
    return collect(results, configurations(results.trials), {})


def judge(trials):
    return {claim.id: claim for claim in judge_claims(look(trials))}


def compared(trials, outcome="learning"):
    evidence = look(trials)
    return contrast_methods(evidence, evidence.table("full"), evidence.table("lora"), outcome)


@pytest.mark.parametrize("learns", [False, True])
def test_methods_that_are_equal_at_their_best_are_hardly_told_apart(learns):
    found = judge_methods(20, learns=learns, tables=TABLES, noise=0.005)["verdicts"]
    verdicts = found["lora-learns-less"]
    # 10% are allowed; 7 of 40 and more then come out with odds of 1 in 20.
    assert verdicts["gap 0"].get(HOLDS, 0.0) <= 6 / TABLES
    assert verdicts["gap 0"].get(HOLDS, 0.0) < found["lora-learns-less, as found"]["gap 0"][HOLDS]
    assert verdicts["gap 0.06"][HOLDS] >= 0.75
    assert verdicts["gap 0.12"][HOLDS] >= 0.9


@pytest.mark.parametrize("learns", [False, True])
def test_a_level_that_was_hardly_tried_is_not_called_behind(learns):
    verdicts = judge_levels(8, learns=learns, tables=TABLES)["verdicts"]
    for name in ON_LEVELS:
        # As above; every claim holds for these searches at their best.
        assert verdicts[name].get(FAILS, 0.0) <= 6 / TABLES
    wrong = [verdicts[f"{name}, as found"].get(FAILS, 0.0) for name in ON_LEVELS]
    assert sum(wrong) > sum(verdicts[name].get(FAILS, 0.0) for name in ON_LEVELS)


def test_a_level_that_was_hardly_tried_is_named_with_what_to_run():
    claims = [judge(searched(8, seed=seed))["mlp-alone-nearly-matches-all"] for seed in range(12)]
    hardly = [
        claim for claim in claims if "too few to tell what its search" in (claim.reason or "")
    ]
    assert hardly
    for claim in hardly:
        assert claim.verdict == UNSURE
        assert None in {claim.low, claim.high}
        level = "all" if "with targets all" in claim.reason else "mlp"
        assert claim.reason.startswith(f"the trials of LoRA with targets {level} are too few to")
        assert claim.to_decide.startswith(f"Run more trials of LoRA with targets {level}, or")


def test_what_search_may_still_gain_widens_the_interval_and_is_said():
    found = compared(searched(gap=0.02, seed=3))
    assert found.as_found is not None
    assert found.low <= found.as_found.low <= found.effect <= found.as_found.high <= found.high
    undecided = [
        claim
        for seed in range(12)
        if (claim := judge(searched(12, gap=0.03, seed=seed))["lora-learns-less"]).parts
        and claim.verdict == UNSURE
        and "may still gain" in claim.reason
    ]
    assert undecided
    for claim in undecided:
        assert "the search of LoRA may still gain up to 0." in claim.reason
        assert claim.to_decide.startswith("Search LoRA further, first around lr ")
        assert "targets " in claim.to_decide
        assert claim.low <= 0.005


def test_more_trials_leave_less_room():
    widths = []
    for n in (12, 40, 160):
        found = [compared(searched(n, seed=seed)) for seed in range(5)]
        widths.append(np.mean([f.as_found.low - f.low for f in found]))
    assert widths[0] > widths[1] > widths[2]


def test_order_of_trials_and_names_of_levels_play_no_part():
    trials = searched(seed=1)
    names = {"attention": "x", "mlp": "a", "all": "m"}
    turned = [
        t.model_copy(update={"hyperparameters": {**t.hyperparameters, "targets": names[targets]}})
        if (targets := t.hyperparameters.get("targets"))
        else t
        for t in reversed(trials)
    ]
    for outcome in ("learning", "forgetting"):
        one, two = compared(trials, outcome), compared(turned, outcome)
        assert (two.effect, two.low, two.high) == pytest.approx(
            (one.effect, one.low, one.high), rel=1e-6
        )


def test_levels_that_were_crossed_by_hand_are_compared_as_they_are():
    world = World()
    trials = [*lora_trials(world), *full_trials(world)]
    for outcome in ("learning", "forgetting"):
        assert compared(trials, outcome).as_found is None
    evidence = look(trials)
    assert is_chosen(evidence, "lora", evidence.table("lora"), ("epochs",))
    evidence = look(searched())
    assert not is_chosen(evidence, "lora", evidence.table("lora"), ())
    assert not is_chosen(evidence, "full", evidence.table("full"), ())


def test_a_search_that_is_too_short_for_a_regression_decides_nothing():
    trials = searched(20, gap=0.2, seed=2)
    few = [t for t in trials if t.method == "full" or t.number < 3]
    extra = [t.model_copy(update={"trial": f"{t.trial}-again", "seed": t.seed + 7}) for t in few]
    claim = judge([*few, *extra])["lora-learns-less"]
    assert claim.verdict == UNSURE


def test_room_on_either_side_stays_on_its_side_of_a_difference():
    as_found = AsFound(low=0.4, high=0.6, lower=Unfinished(reason="a", to_run="b"))
    one = Estimate(effect=0.5, low=0.2, high=0.6, n=9, n_of="trials", basis="", as_found=as_found)
    two = Estimate(effect=0.1, low=0.0, high=0.2, n=9, n_of="trials", basis="")
    found = difference(one, two, "")
    assert found.as_found is not None
    assert (found.low, found.high) == pytest.approx((0.4 - 0.1**0.5, 0.4 + 0.02**0.5))
    assert (found.as_found.low, found.as_found.high) == pytest.approx(
        (0.4 - 0.02**0.5, 0.4 + 0.02**0.5)
    )
    assert found.as_found.lower == Unfinished(reason="a", to_run="b")
    assert found.as_found.upper is None
