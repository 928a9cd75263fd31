from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorasweep.evaluate.generation import nucleus
from lorasweep.evaluate.generation.nucleus import draw

GRID = torch.arange(0.5, 20000) / 20000  # as good as all numbers of [0, 1)


def _drawn(logits_V: Tensor, uniforms_R: Tensor, **options: float) -> Tensor:
    return draw(logits_V.expand(len(uniforms_R), -1), uniforms_R, **options)


def _nucleus(logits_V: Tensor, temperature: float, top_p: float) -> Tensor:
    """Compute the probabilities of nucleus sampling token by token."""
    likely = (logits_V.double() / temperature).softmax(-1)
    kept, mass = torch.zeros_like(likely), 0.0
    for token in sorted(range(len(likely)), key=lambda token: (-likely[token], token)):
        if mass >= top_p:
            break
        kept[token] = likely[token]
        mass += float(likely[token])
    return kept / mass


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 700])
@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.2, 0.95), (0.8, 0.95), (3.0, 0.5)]
)
def test_tokens_are_drawn_as_often_as_the_nucleus_says(
    vocabulary: int, temperature: float, top_p: float
):
    logits_V = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    tokens = _drawn(logits_V, GRID.double(), temperature=temperature, top_p=top_p)
    shares_V = torch.bincount(tokens, minlength=vocabulary) / len(GRID)
    assert torch.allclose(shares_V.double(), _nucleus(logits_V, temperature, top_p), atol=1e-4)


def test_a_long_list_of_equals_is_cut_by_id(monkeypatch: pytest.MonkeyPatch):
    logits_V = torch.zeros(200)
    logits_V[150:] = 1.0
    tokens = _drawn(logits_V, GRID.double(), temperature=1.0, top_p=0.3)
    short = torch.bincount(tokens, minlength=200) > 0
    assert short.nonzero().flatten().tolist() == list(range(150, 150 + int(short.sum())))
    monkeypatch.setattr(nucleus, "SHORTLIST", 200)
    assert torch.equal(tokens, _drawn(logits_V, GRID.double(), temperature=1.0, top_p=0.3))


def test_the_shortlist_changes_no_draw(monkeypatch: pytest.MonkeyPatch):
    logits_RV = torch.randn(300, 500, generator=torch.Generator().manual_seed(0)) * 3
    uniforms_R = torch.rand(300, generator=torch.Generator().manual_seed(1)).double()
    drawn = draw(logits_RV, uniforms_R, temperature=0.7, top_p=0.9)
    for length in (1, 8, 500):
        monkeypatch.setattr(nucleus, "SHORTLIST", length)
        assert torch.equal(draw(logits_RV, uniforms_R, temperature=0.7, top_p=0.9), drawn)


def test_without_temperature_the_likeliest_token_is_taken():
    logits_V = torch.tensor([0.0, 3.0, 2.9])
    tokens = _drawn(logits_V, GRID.double(), temperature=0.0, top_p=0.1)
    assert tokens.unique().tolist() == [1]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_broken_model_still_draws_some_token(broken: float):
    logits_RV = torch.zeros(3, 100)
    logits_RV[1, 7] = broken
    tokens = draw(logits_RV, torch.tensor([0.1, 0.5, 0.999]).double(), temperature=0.2, top_p=0.95)
    assert ((tokens >= 0) & (tokens < 100)).all()
