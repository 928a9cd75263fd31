"""Tiny models of four families, saved the way their users save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import make_tokenizer

VOCABULARY = 261
LAYERS = 2


def _configs() -> dict[str, Any]:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config

    ends = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": VOCABULARY}
    shape = {
        "hidden_size": 16,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
    }
    grouped = {**shape, "num_key_value_heads": 2}
    return {
        "llama": LlamaConfig(**ends, **grouped),
        "qwen2": Qwen2Config(**ends, **grouped),
        "gpt2": GPT2Config(**ends, n_embd=16, n_head=4, n_layer=LAYERS, n_positions=32),
        "gpt_neox": GPTNeoXConfig(**ends, **shape),
    }


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build the folder of a family's tiny model at first use."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        import torch
        from transformers import AutoModelForCausalLM

        if not (root / name).exists():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(_configs()[name])
            model.save_pretrained(str(root / name))
            make_tokenizer(framing=False).save_pretrained(str(root / name))
        return root / name

    return folder
