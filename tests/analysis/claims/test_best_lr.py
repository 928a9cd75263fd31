"""The best learning rate: its place, and an interval that holds it."""

import numpy as np
import pytest

from benchmarks.searches import cover_peak
from lorasweep.analysis.claims.best_lr import find_peak
from lorasweep.analysis.evidence import collect
from lorasweep.store.configurations import configurations
from tests.analysis.planted import sweep, trial


def peak_of(rates, learning):
    trials = [
        trial(f"t{i}", score, lr=float(rate), targets="all", rank=4).model_copy(
            update={"method": "full"}
        )
        for i, (rate, score) in enumerate(zip(rates, learning, strict=True))
    ]
    results = sweep(trials)
    evidence = collect(results, configurations(results.trials), {})
    return find_peak(evidence, evidence.table("full"))


def rise_and_fall(decades, top, below=0.05, above=0.5):
    off = decades - top
    return 0.6 - np.where(off < 0, below, above) * off**2


def test_the_top_of_a_curve_with_two_sides_is_found_where_it_is():
    decades = np.linspace(-6, -4, 23)
    for top in (-5.4, -5.0, -4.6):
        found = peak_of(10**decades, rise_and_fall(decades, top))
        assert found.draws == pytest.approx(np.full(len(found.draws), top), abs=0.02)
        assert (found.below, found.above) == (0, 0)


def test_mirrored_scores_mirror_the_top_and_a_valley_is_open_at_its_higher_end():
    decades = np.linspace(-6, -4, 23)
    scores = rise_and_fall(decades, -4.6)
    mirrored = peak_of(10**decades, scores[::-1])
    assert np.median(mirrored.draws) == pytest.approx(-5.4, abs=0.02)
    valley = peak_of(10**decades, 1 - scores)
    assert valley.above > 0.5
    assert valley.below < 0.05


@pytest.mark.parametrize(("top", "end"), [(-7.5, "below"), (-2.5, "above")])
def test_a_best_that_lies_beyond_what_was_tried_is_open_on_that_side(top, end):
    decades = np.linspace(-6, -4, 23)
    found = peak_of(10**decades, rise_and_fall(decades, top, 0.05, 0.05))
    assert getattr(found, end) > 0.9
    assert getattr(found, {"below": "above", "above": "below"}[end]) == 0


def test_equal_scores_leave_the_best_open_on_both_sides():
    found = peak_of(np.logspace(-6, -4, 23), [0.5] * 23)
    assert found.below > 0.05
    assert found.above > 0.05


@pytest.mark.parametrize("peak", ["parabola", "steep"])
@pytest.mark.parametrize("learns", [False, True])
def test_nine_intervals_in_ten_hold_the_best_rate(peak, learns):
    found = cover_peak(20, learns=learns, tables=40, peak=peak)["intervals"]
    for own in found.values():
        assert own["tables"] == 40
        # 31 of 40 and fewer come out with odds of 1 in 60 where 90% are held.
        assert own["coverage"] >= 32 / 40
        assert own["closed"] >= 0.5
        assert abs(own["bias"]) < 0.1
