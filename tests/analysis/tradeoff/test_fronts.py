"""Hypervolumes of fronts, and two fronts compared where the other score is equal."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.analysis.evidence import collect
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.tradeoff.hypervolume import area, measure_hypervolumes
from lorasweep.store.configurations import configurations
from tests.analysis.planted import sweep, trial
from tests.analysis.published import setting

QUIET = {name: Noise() for name in ("learning", "forgetting")}
PLACE = st.integers(0, 8)


@given(st.lists(st.tuples(PLACE, PLACE), min_size=1, max_size=15))
def test_the_area_equals_counting_its_unit_squares(points):
    squares = sum(
        any(gain >= x + 1 and cost <= y for gain, cost in points)
        for x in range(8)
        for y in range(8)
    )
    assert area(np.array(points, dtype=float), (0.0, 8.0)) == squares


def test_the_reference_is_the_worst_of_all_and_the_pooled_front_covers_most():
    found = {row.scope: row for row in measure_hypervolumes(setting("code-ift").trials, QUIET)}
    assert {(row.reference.learning, row.reference.forgetting) for row in found.values()} == {
        (0.197, -0.414)
    }
    assert found["pooled"].area.effect >= found["lora"].area.effect > found["full"].area.effect
    for row in found.values():
        assert row.area.low is not None
        assert row.area.high is not None
        assert row.area.low < row.area.effect < row.area.high


def test_few_trials_have_an_area_but_no_interval():
    (only, _) = measure_hypervolumes([trial("a", 0.5, forgetting=0.1)], QUIET)
    assert (only.area.effect, only.area.low, only.area.n) == (0.0, None, 1)
    assert measure_hypervolumes([trial("a", 0.5)], QUIET) == ()


def parallel(ahead, noise=0.0, start=0.0):
    """Place full finetuning's front above LoRA's by some learning at equal forgetting."""
    draw = random.Random(3)
    trials = []
    for i in range(12):
        cost = i / 40
        for method, lead, shift in (("lora", 0.0, 0.0), ("full", ahead, start)):
            learning = 0.3 + 2 * (cost + shift) + lead + draw.gauss(0, noise)
            trials.append(
                trial(f"{method}{i}", learning, method=method, forgetting=cost + shift, lr=1e-5 * i)
            )
    return sweep(trials, axes=("lr",))


def matched(results, outcome):
    evidence = collect(results, configurations(results.trials), {})
    return next(row for row in evidence.matched if row.outcome == outcome)


def test_parallel_fronts_differ_by_what_was_planted():
    found = matched(parallel(0.1), "learning")
    assert (found.method, found.other) == ("lora", "full")
    assert found.difference == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1) == found.high
    assert found.reason is None
    assert matched(parallel(0.1), "forgetting").difference == pytest.approx(0.05)


def test_equal_fronts_cannot_be_told_apart():
    found = matched(parallel(0.0, noise=0.03), "learning")
    assert found.low < 0 < found.high
    assert found.reason == "the interval includes no difference"


def test_fronts_without_a_common_range_cannot_be_compared():
    found = matched(parallel(0.1, start=1.0), "learning")
    assert found.difference is None
    assert "no range of forgetting in common" in found.reason


def test_two_points_give_a_difference_but_no_interval():
    results = parallel(0.1)
    few = sweep(results.trials[:4], axes=("lr",))
    found = matched(few, "learning")
    assert found.difference == pytest.approx(-0.1)
    assert found.low is None
    assert found.reason == "3 configurations of each method are needed"
