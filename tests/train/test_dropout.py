from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.train.dropout import SeededDropout, dropout_seed


def dropout(p: float = 0.25, tokens: int = 40, filled: list[int] | None = None) -> SeededDropout:
    places = torch.tensor(list(range(tokens)) if filled is None else filled)
    return SeededDropout(p, seed=3, step=5, index=1, tokens=tokens, token_indices_S=places)


@given(st.floats(0.01, 0.99))
def test_a_factor_is_0_or_1_over_1_minus_p(p: float):
    factors = dropout(p)(2, 16)
    assert factors.shape == (40, 16)
    kept = factors[factors != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_dropped_share_is_p_and_the_mean_factor_is_1(p: float):
    factors = dropout(p, tokens=2000)(0, 500)
    assert float((factors == 0).float().mean()) == pytest.approx(p, abs=0.002)
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_padding_gets_factor_0_and_does_not_change_what_examples_draw():
    close = dropout(tokens=12)(7, 8)
    places = [0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 25, 39]
    apart = dropout(filled=places)(7, 8)
    assert torch.equal(apart[places], close)
    assert apart.count_nonzero() == close.count_nonzero()


def test_examples_draw_in_their_order_wherever_they_lie_in_rows():
    one_row = dropout(tokens=10)(0, 8)
    other = dropout(tokens=10, filled=[5, 6, 7, 8, 9, 0, 1, 2, 3, 4])(0, 8)
    assert torch.equal(other.roll(5, dims=0), one_row)


def test_the_same_seed_step_and_micro_batch_draw_the_same_at_any_time():
    asked = dropout()
    first = asked(1, 8)
    before = torch.get_rng_state()
    asked(2, 8)
    torch.rand(3)
    torch.set_rng_state(before)
    assert torch.equal(dropout()(1, 8), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", [{"seed": 4}, {"step": 6}, {"index": 2}])
def test_other_seeds_steps_and_micro_batches_draw_differently(change: dict[str, Any]):
    assert not torch.equal(replace(dropout(), **change)(1, 8), dropout()(1, 8))


def test_layers_draw_differently():
    asked = dropout()
    drawn = [asked(layer, 8) for layer in range(6)]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_nearly_all_dropout_seeds_of_a_sweep_differ():
    sources = [
        (seed, step, index, layer)
        for seed in range(4)
        for step in range(12)
        for index in range(4)
        for layer in range(16)
    ]
    seeds = {dropout_seed(*source) for source in sources}
    assert len(seeds) >= len(sources) - 3  # of 32 bits, so that two may meet by chance
