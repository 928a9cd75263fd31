from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.errors import LorasweepError
from lorasweep.evaluate.code.pass_at_k import estimate_pass_at_k


@given(st.integers(1, 9), st.data())
def test_it_is_the_share_of_choices_of_k_that_hold_one_that_passed(
    samples: int, data: st.DataObject
):
    passed = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    outcomes = [True] * passed + [False] * (samples - passed)
    choices = [any(choice) for choice in combinations(outcomes, k)]
    assert estimate_pass_at_k(k, samples=samples, passed=passed) == pytest.approx(
        sum(choices) / len(choices)
    )


def test_of_one_it_is_the_share_that_passed():
    assert estimate_pass_at_k(1, samples=50, passed=7) == pytest.approx(7 / 50)


def test_of_all_it_is_whether_any_passed():
    assert estimate_pass_at_k(256, samples=256, passed=0) == 0.0
    assert estimate_pass_at_k(256, samples=256, passed=1) == 1.0


@given(st.integers(1, 256), st.integers(0, 256))
def test_it_stays_a_probability_and_rises_with_k_at_many_samples(k: int, passed: int):
    value = estimate_pass_at_k(k, samples=256, passed=passed)
    assert 0.0 <= value <= 1.0
    if k < 256:
        assert value <= estimate_pass_at_k(k + 1, samples=256, passed=passed) + 1e-12


def test_a_value_of_many_samples_is_exact():
    # 1 - C(255, 128) / C(256, 128), whose coefficients have 76 digits.
    assert estimate_pass_at_k(128, samples=256, passed=1) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "samples", "passed", "sentence"),
    [
        (11, 10, 3, "pass@k: k must be between 1 and the number of samples, 10, got 11"),
        (0, 10, 3, "pass@k: k must be between 1 and the number of samples, 10, got 0"),
        (1, 10, 11, "pass@k: between 0 and all 10 samples must have passed, got 11"),
    ],
)
def test_what_cannot_be_is_refused(k: int, samples: int, passed: int, sentence: str):
    with pytest.raises(LorasweepError, match=re.escape(sentence)):
        estimate_pass_at_k(k, samples=samples, passed=passed)
