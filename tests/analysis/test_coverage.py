"""Coverage of the intervals, on fewer tables than benchmarks/coverage.py simulates.

With 20 tables a coverage of 90% comes out below 70% with odds of 1 in 400.
"""

import numpy as np
import pytest

from benchmarks.coverage import TRUTHS, cover_ranking, cover_rate

TABLES = 20


@pytest.mark.parametrize("name", ["additive", "conditional"])
def test_a_factorial_gives_known_shares_and_costs(name):
    found = cover_ranking(TRUTHS[name], 0.05, tables=TABLES, best=True)
    for what, held in found["intervals"].items():
        assert held["coverage"] >= 0.7, what


def test_a_sample_gives_known_shares(monkeypatch):
    monkeypatch.setattr("lorasweep.analysis.sensitivity.importance._FULL_TREES", 4)
    found = cover_ranking(TRUTHS["additive"], 0.05, n=60, tables=20, best=False)
    assert min(held["coverage"] for held in found["intervals"].values()) >= 0.7
    assert found["shown"]["lr"] >= 0.7


def test_the_highest_stable_learning_rate_is_held():
    found = cover_rate(-3.0, 6.0, np.repeat(np.linspace(-5, -2, 7), 5), TABLES)
    assert found["intervals"]["highest stable lr"]["coverage"] >= 0.7
