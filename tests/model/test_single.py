from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lorasweep.errors import ModelError
from lorasweep.model.base import empty_base, load_base, save_tuned
from lorasweep.model.lora import initial_adapter, save_adapter
from lorasweep.model.single import SingleModel, adapter_of, insert_adapter
from lorasweep.model.targets import adapter_layers
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import LoraHyperparameters

CPU = torch.device("cpu")
FAMILIES = ["llama", "qwen2", "gpt2", "gpt_neox"]
IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 1]])
LORA = LoraHyperparameters(rank=3, alpha="rslora:4", targets="all", dropout=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_inserted_adapter_is_the_one_that_peft_loads(family, tmp_path: Path, name: str):
    spec = ModelSpec(path=str(family(name)), dtype="fp32")
    layers = adapter_layers(empty_base(spec), "all")
    base = load_base(spec, CPU)
    assert adapter_layers(base, "all") == layers
    insert_adapter(base, layers, LORA, seed=7)
    adapter, drawn = adapter_of(base), initial_adapter(layers, LoraHyperparameters(rank=3), 7)
    assert adapter.keys() == drawn.keys()
    assert all(torch.equal(adapter[name], drawn[name]) for name in drawn)
    with torch.no_grad():
        for key, weight in adapter.items():
            weight.add_(torch.full_like(weight, 0.01 * (1 + len(key) % 3)))
    save_adapter(tmp_path, adapter, layers, LORA, str(family(name)))
    tuned = PeftModel.from_pretrained(load_base(spec, CPU), str(tmp_path))
    with SingleModel(base).all_copies() as model, torch.no_grad():
        assert torch.allclose(tuned(IDS_BT).logits, model(IDS_BT).logits, atol=1e-6)


def test_a_single_model_is_served_without_dropout_and_gradients(family):
    base = load_base(ModelSpec(path=str(family("llama"))), CPU, attention_dropout=0.5)
    base.requires_grad_(True).train()
    served = SingleModel(base)
    assert served.copies == 1
    assert served.cache_bytes > 0
    with served.all_copies() as model:
        one = model(IDS_BT).logits
    with served.one_copy(0) as model:
        assert torch.equal(model(IDS_BT).logits, one)
        assert not one.requires_grad
    assert base.training


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_dropout_is_the_only_dropout(family, name: str):
    spec = ModelSpec(path=str(family(name)), dtype="fp32")
    plain = load_base(spec, CPU).train()
    dropping = load_base(spec, CPU, attention_dropout=0.5).train()
    assert torch.equal(plain(IDS_BT).logits, plain.eval()(IDS_BT).logits)
    dropped = dropping(IDS_BT).logits
    assert not torch.allclose(dropped, plain(IDS_BT).logits, atol=1e-6)
    assert torch.equal(dropping.eval()(IDS_BT).logits, plain(IDS_BT).logits)


def test_a_model_without_attention_dropout_is_refused_in_a_sentence(tmp_path: Path):
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=261, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=r"^hyperparameters.attention_dropout: must be 0 for a"):
        load_base(ModelSpec(path=str(tmp_path)), CPU, attention_dropout=0.1)


def test_a_tuned_base_is_saved_with_the_bases_own_configuration(family, tmp_path: Path):
    spec = ModelSpec(path=str(family("llama")), dtype="bf16")
    base = load_base(spec, CPU, attention_dropout=0.5)
    save_tuned(tmp_path, base, base.state_dict(), spec)
    saved = json.loads((tmp_path / "config.json").read_text())
    own = json.loads((family("llama") / "config.json").read_text())
    assert saved == {**own, "dtype": "bfloat16"}
