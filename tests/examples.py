"""Examples that trials of several tests train and are measured on."""

from __future__ import annotations

from pathlib import Path

from lorasweep.data.tokens import Tokens
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.sweep import ModelSpec
from tests.conftest import sentences


def examples(folder: Path) -> Tokens:
    """Make 60 examples of various lengths; a response repeats the last words of its prompt."""
    tokenizer = load_tokenizer(ModelSpec(path=str(folder)))
    rows = []
    for i, sentence in enumerate(sentences(60, seed=2)):
        words = sentence.split()
        prompt = tokenizer(f"Repeat: {' '.join(words)}\n")["input_ids"]
        response = tokenizer(" ".join(words[-1 - i % 4 :]))["input_ids"]
        rows.append(([*prompt, *response, tokenizer.eos_token_id], len(prompt)))
    return Tokens.pack(rows)
