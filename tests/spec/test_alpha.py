import pytest

from lorasweep.spec.alpha import (
    FIXED,
    RSLORA,
    TIMES_RANK,
    Alpha,
    common_multiple,
    is_multiple,
    read_alpha,
    rule_of,
)


@pytest.mark.parametrize(
    ("written", "alpha", "at_16"),
    [
        (32.0, Alpha(FIXED, 32.0), 32.0),
        ("32", Alpha(FIXED, 32.0), 32.0),
        ("0.5r", Alpha(TIMES_RANK, 0.5), 8.0),
        ("rslora:16", Alpha(RSLORA, 16.0), 16.0),
    ],
)
def test_alpha_is_a_rule_and_a_number(written, alpha, at_16):
    assert read_alpha(written) == alpha
    assert alpha.at(16) == at_16
    assert alpha.scaling(16) == at_16 / (4 if alpha.rule == RSLORA else 16)
    assert rule_of(written) == alpha.rule


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "r", "0r", "rslora:0", "two"])
def test_an_alpha_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        read_alpha(wrong)


def test_a_number_may_be_a_multiple_of_the_rank():
    assert is_multiple("2r", 16, 2)
    assert is_multiple(32.0, 16, 2)
    assert not is_multiple(32.0, 8, 2)
    assert not is_multiple("1r", 16, 2)
    assert not is_multiple(None, 16, 2)


def test_several_ranks_show_the_multiple_that_all_numbers_are():
    assert common_multiple([(16.0, 8), (32.0, 16), ("2r", 4)]) == 2
    assert common_multiple([(0.3, 1), (0.9, 3)]) == 0.3
    assert common_multiple([(32.0, 8), (32.0, 16)]) is None
    assert common_multiple([(32.0, 16), (32.0, 16)]) is None
    assert common_multiple([(32.0, None), (None, 8)]) is None
