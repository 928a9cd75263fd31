from __future__ import annotations

import pytest
import torch

from lorasweep.model.base import empty_base, load_base
from lorasweep.model.rows import attention_cost, cache_bytes, shares_rows
from lorasweep.spec.sweep import ModelSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gpt_neox"])
def test_whether_rows_are_shared_is_found_out_on_a_plain_model(family, name: str):
    base = load_base(ModelSpec(path=str(family(name)), dtype="fp32"), CPU).train()
    assert shares_rows(base, CPU)
    assert base.training
    base.config._attn_implementation = "eager"
    assert isinstance(shares_rows(base, CPU), bool)


def test_a_model_without_position_ids_shares_no_rows():
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=261, hidden_size=16, n_layer=1, n_head=2)
    assert not shares_rows(BloomForCausalLM(config), CPU)


def test_attention_costs_twice_the_hidden_size_in_each_layer_over_the_weights(family):
    base = load_base(ModelSpec(path=str(family("llama"))), CPU)
    weights = sum(p.numel() for p in base.parameters())
    assert attention_cost(base) == 2 * 2 * 16 / weights
    assert attention_cost(empty_base(ModelSpec(path=str(family("llama"))))) == attention_cost(base)


def test_the_cache_bytes_cover_keys_and_values_of_every_position(family):
    fp32, bf16 = (
        load_base(ModelSpec(path=str(family("llama")), dtype=dtype), CPU)
        for dtype in ("fp32", "bf16")
    )
    assert cache_bytes(fp32) == 2 * 2 * 16 * 32 * 4
    assert cache_bytes(bf16) == cache_bytes(fp32) / 2
