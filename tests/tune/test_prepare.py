from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from lorasweep.errors import ModelError, SpecError
from lorasweep.spec.sweep import parse_sweep
from lorasweep.tune.prepare import prepare


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_targets_that_the_model_lacks_are_refused_before_anything_starts(gpt2):
    content = {"model": {"path": str(gpt2)}, "space": {"targets": ["all", "ungated"]}}
    with pytest.raises(ModelError, match=r"space.targets: 'ungated' leaves out .* use 'all'"):
        prepare(parse_sweep(content))


def test_a_duration_in_tokens_needs_documents():
    content = {"hyperparameters": {"tokens": 5000}, "data": {"seq_len": 96}, "space": {"lr": True}}
    with pytest.raises(SpecError, match=r"hyperparameters.tokens: .* use epochs or train.steps"):
        prepare(parse_sweep(content))
