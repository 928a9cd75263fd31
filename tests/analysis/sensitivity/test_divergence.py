import math
import random

import numpy as np
import pytest

from lorasweep.analysis.intervals import wilson_bounds
from lorasweep.analysis.scale import scales
from lorasweep.analysis.sensitivity.divergence import stable_rate, summarise_divergence
from tests.analysis.planted import RANKS, sweep, trial


def summarise(trials, axes=("lr", "rank")):
    results = sweep(trials, axes=axes)
    return summarise_divergence(results.trials, scales(results, results.trials))


def by_threshold(place):
    """Make a grid in which trials diverge from a learning rate on that depends on the rank."""
    return [
        trial(
            f"t{i}-{rank}",
            status="DIVERGED" if i >= place(rank) else "COMPLETE",
            lr=10.0 ** (-5 + i / 4),
            rank=rank,
        )
        for i in range(12)
        for rank in RANKS
    ]


def test_wilson_against_a_worked_example():
    # Centre (0.2 + 0.1353) / 1.2706, reach 1.2947 times the root of 0.016 + 0.0068.
    assert wilson_bounds(2, 10) == pytest.approx((0.0686, 0.4592), abs=1e-4)
    assert wilson_bounds(0, 5)[0] == 0
    assert wilson_bounds(5, 5)[1] == 1


def test_shares_count_what_finished():
    trials = [
        trial("a", lr=1e-4, rank=4),
        trial("b", status="DIVERGED", lr=1e-3, rank=4),
        trial("c", status="FAILED", lr=1e-3, rank=4),
        trial("d", status="PRUNED", lr=1e-3, rank=16),
        trial("e", status="RUNNING", lr=1e-3, rank=16),
    ]
    four, sixteen = summarise(trials).by_level["rank"]
    assert (four.finished, four.diverged, four.share) == (2, 1, 0.5)
    assert (sixteen.finished, sixteen.diverged) == (1, 0)


def test_a_clean_cut_lies_between_its_neighbours():
    rate = summarise(by_threshold(lambda _: 8)).stable_rate
    assert rate is not None
    assert rate.basis == "curve"
    assert rate.largest_stable is not None
    assert rate.smallest_diverged is not None
    assert rate.largest_stable == pytest.approx(10 ** (-5 + 7 / 4))
    assert rate.smallest_diverged == pytest.approx(1e-3)
    assert rate.estimate is not None
    assert rate.largest_stable <= rate.estimate <= rate.smallest_diverged
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low <= rate.estimate <= rate.high


def test_another_hyperparameter_that_moves_it_is_named():
    (moved,) = summarise(by_threshold(lambda rank: {4: 10, 16: 7, 64: 3}[rank])).stable_rate_by
    assert moved.hyperparameter == "rank"
    assert moved.differs
    estimates = [rate.estimate or 0.0 for rate in moved.levels.values()]
    assert estimates == sorted(estimates, reverse=True)
    (still,) = summarise(by_threshold(lambda _: 8)).stable_rate_by
    assert not still.differs


def test_one_side_only_bounds_it_from_one_side():
    logs = np.linspace(-5, -3, 9)
    none, every = stable_rate(logs, np.zeros(9)), stable_rate(logs, np.ones(9))
    assert (none.basis, none.low, none.high) == ("none diverged", 1e-3, None)
    assert (every.basis, every.low, every.high) == ("all diverged", None, 1e-5)


def test_divergence_by_chance_has_no_place():
    draw = random.Random(3)
    logs = np.linspace(-5, -3, 30)
    rate = stable_rate(logs, np.array([float(draw.random() < 0.4) for _ in logs]))
    assert rate.basis == "cannot tell"
    assert rate.estimate is None


def test_order_plays_no_part_and_many_trials_do():
    rng = np.random.default_rng(0)
    logs = rng.uniform(-5, -2, 3000)
    lost = (rng.uniform(size=3000) < 1 / (1 + np.exp(-8 * (logs + 2.8)))).astype(float)
    rate = stable_rate(logs, lost)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 10**-2.8 < rate.high
    assert math.log10(rate.high / rate.low) < 0.06
    order = rng.permutation(3000)
    assert stable_rate(logs[order], lost[order]) == rate


def test_few_or_no_learning_rates_raise_nothing():
    assert summarise([trial("a", rank=4)], axes=("rank",)).stable_rate is None
    assert summarise([]).by_level == {}
    alike = [trial("a", lr=1e-3, rank=4), trial("b", status="DIVERGED", lr=1e-3, rank=4)]
    rate = summarise(alike).stable_rate
    assert rate is not None
    assert rate.basis == "cannot tell"
