import random

import numpy as np

from lorasweep.analysis.evidence import collect
from lorasweep.store.configurations import configurations
from tests.analysis.planted import sweep, trial


def evidence(scores):
    """Make configurations with these scores over their seeds."""
    trials = [
        trial(f"t{i}-{seed}", score, rank=f"r{i}", seed=seed, number=i)
        for i, own in enumerate(scores)
        for seed, score in enumerate(own)
    ]
    return collect(sweep(trials, axes=("rank",)), configurations(trials), {})


def test_the_expected_score_of_the_winner_is_not_biased_by_its_luck():
    """Truths spread by 0.02, seeds by 0.02: the best mean of two is too high, its estimate not."""
    naive, shrunk, covered = [], [], []
    draw = random.Random(0)
    for _ in range(200):
        truths = [0.5 + draw.gauss(0, 0.02) for _ in range(20)]
        scores = [[truth + draw.gauss(0, 0.02) for _ in range(2)] for truth in truths]
        found = evidence(scores)
        best = int(np.argmax(found.table("lora").learning))
        estimate = found.expected["lora"].at(best)
        naive.append(float(found.table("lora").learning[best]) - truths[best])
        shrunk.append(estimate.effect - truths[best])
        covered.append(estimate.low <= truths[best] <= estimate.high)
    assert np.mean(naive) > 0.006
    assert abs(np.mean(shrunk)) < 0.003
    assert 0.8 <= np.mean(covered) <= 0.98


def test_without_noise_the_score_is_what_was_measured():
    found = evidence([[0.4, 0.4], [0.6, 0.6], [0.5, 0.5]]).expected["lora"]
    assert list(found.values) == [0.4, 0.6, 0.5]
    assert found.at(1).low == found.at(1).high == 0.6


def test_single_seeds_of_a_few_configurations_give_no_interval():
    found = evidence([[0.4], [0.6], [0.5]]).expected["lora"].at(1)
    assert (found.effect, found.low, found.high) == (0.6, None, None)
