"""A merged model is the base with the adapter, in the form and the dtype of the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasweep.errors import ModelError
from lorasweep.model.lora import AdapterLayer, initial_adapter, save_adapter
from lorasweep.model.merged import save_merged
from lorasweep.model.targets import adapter_layers
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import LoraHyperparameters
from tests.data.conftest import make_tokenizer
from tests.model.families import model_of

IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 3, 4, 77]])
LORA = LoraHyperparameters(rank=3, alpha="rslora:4", targets="all", dropout=0.2)


def prepare(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """Save a family's base with its tokenizer, and an adapter of all its layers."""
    base, adapter = folder / "base", folder / "adapter"
    model = model_of(name).to(dtype)
    model.save_pretrained(str(base))
    make_tokenizer(framing=False).save_pretrained(str(base))
    save(adapter_layers(model, "all"), adapter)
    return base, adapter


def save(layers: tuple[AdapterLayer, ...], folder: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    drawn = initial_adapter(layers, LORA, 1)
    moved = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in drawn.items()}
    save_adapter(folder, moved, layers, LORA, "base")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS_BT).logits.float()
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "qwen2_moe", "deepseek_v2"])
def test_a_merged_model_computes_what_base_and_adapter_compute(name, tmp_path: Path):
    base, adapter = prepare(tmp_path, name)
    merged = tmp_path / "merged"
    assert save_merged(ModelSpec(path=str(base)), adapter, merged) < 1e-6
    untuned = AutoModelForCausalLM.from_pretrained(str(base))
    before = logits(untuned)
    tuned = logits(PeftModel.from_pretrained(untuned, str(adapter)))
    loaded = AutoModelForCausalLM.from_pretrained(str(merged))
    assert (tuned - before).abs().max() > 0.1
    assert torch.allclose(logits(loaded), tuned, atol=1e-5)
    assert type(loaded) is type(model_of(name, "meta"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "deepseek_v2"])
def test_its_files_are_those_of_the_base_in_form_and_dtype(name, dtype, tmp_path: Path):
    base, adapter = prepare(tmp_path, name, dtype)
    merged = tmp_path / "merged"
    rounding = save_merged(ModelSpec(path=str(base)), adapter, merged)
    assert (rounding > 1e-3) == (dtype == torch.bfloat16)
    own, other = (load_file(folder / "model.safetensors") for folder in (base, merged))
    # Tied embeddings are one tensor, and experts are stored one by one, as in the base.
    assert {k: (v.shape, v.dtype) for k, v in own.items()} == {
        k: (v.shape, v.dtype) for k, v in other.items()
    }
    config, written = (json.loads((f / "config.json").read_text()) for f in (base, merged))
    assert written == config
    assert written["architectures"] == [type(model_of(name, "meta")).__name__]
    tokenizer = AutoTokenizer.from_pretrained(str(merged))
    text = "the river and the stone"
    assert tokenizer(text) == AutoTokenizer.from_pretrained(str(base))(text)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_head_that_is_the_embedding_is_not_merged(tmp_path: Path):
    base, _ = prepare(tmp_path, "gpt2")  # whose head is its embedding
    model = model_of("gpt2")
    save((AdapterLayer.of("lm_head", model.lm_head),), tmp_path / "head")
    with pytest.raises(ModelError, match=r"^--merge: the adapter must not change the head of a"):
        save_merged(ModelSpec(path=str(base)), tmp_path / "head", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_refused_in_a_sentence(tmp_path: Path):
    base, _ = prepare(tmp_path / "one", "llama")
    _, adapter = prepare(tmp_path / "other", "gpt2")
    with pytest.raises(ModelError, match=r"^--merge: .*adapter' must be an adapter of "):
        save_merged(ModelSpec(path=str(base)), adapter, tmp_path / "merged")
