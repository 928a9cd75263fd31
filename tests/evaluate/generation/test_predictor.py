from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    MambaConfig,
    Qwen2Config,
)

from lorasweep.evaluate.generation.predictor import (
    _CachedPredictor,
    _UncachedPredictor,
    make_predictor,
    row_width,
)
from tests.evaluate.taught import CPU

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=40),
    "qwen2": Qwen2Config(**SIZES, **HEADS, max_position_embeddings=40),
    "gemma2": Gemma2Config(**SIZES, **HEADS, head_dim=16, sliding_window=8),  # forgets in part
    "mamba": MambaConfig(**SIZES),  # has no keys and values to keep
}


def _model(name: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


def _texts(*lengths: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(1)
    return [torch.randint(4, 60, (length,), generator=random).tolist() for length in lengths]


@torch.no_grad()
def _alone(model: Any, texts: list[list[int]]) -> Tensor:
    rows = [model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1] for text in texts]
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_text_is_predicted_as_it_is_in_a_row_of_its_own(name: str):
    model, texts = _model(name), _texts(3, 17, 30)
    predictor = make_predictor(model, texts, pad=0, device=CPU)
    torch.testing.assert_close(predictor.predict(), _alone(model, texts), atol=1e-4, rtol=0)
    rows = [2, 0, 0, 1]
    predictor.select(torch.tensor(rows))
    texts = [list(texts[row]) for row in rows]
    for step in range(10):
        tokens = [(7 * step + row) % 60 for row in range(len(texts))]
        predictor.append(torch.tensor(tokens))
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
        torch.testing.assert_close(predictor.predict(), _alone(model, texts), atol=1e-4, rtol=0)
        if step == 4:
            predictor.select(torch.tensor([0, 2, 3]))
            texts = [texts[0], texts[2], texts[3]]


def test_only_a_model_that_keeps_keys_and_values_is_read_once():
    kinds = {name: type(make_predictor(_model(name), [[1]], pad=0, device=CPU)) for name in CONFIGS}
    assert kinds.pop("mamba") is _UncachedPredictor
    assert set(kinds.values()) == {_CachedPredictor}


@torch.no_grad()
def test_a_row_is_predicted_the_same_in_any_company():
    model = _model("qwen2")
    texts = _texts(*range(1, 16))  # all in rows of one width
    together = make_predictor(model, texts * 2, pad=0, device=CPU).predict()
    for first in range(0, 15, 5):
        few = texts[first : first + 5]
        filled = few + [few[0]] * 11
        apart = make_predictor(model, filled, pad=0, device=CPU).predict()[:5]
        torch.testing.assert_close(apart, together[first : first + 5], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("tokens", "width"), [(1, 16), (15, 16), (16, 32), (31, 32), (32, 48)])
def test_a_row_has_always_some_padding(tokens: int, width: int):
    assert row_width(tokens) == width
