"""Examples that trials of several tests train and are measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorasweep.data.tokens import StoredTokens, Tokens
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.sweep import ModelSpec
from tests.conftest import sentences


def pack(rows: list[tuple[list[int], int]]) -> Tokens:
    """Lay out examples, each given by its token ids and the length of its prompt."""
    return Tokens.pack([(ids, [i >= prompt for i in range(len(ids))]) for ids, prompt in rows])


def prompted(tokens: Tokens | StoredTokens, row: int) -> tuple[NDArray[np.int32], int]:
    """Slice out an example's token ids, with the length of its prompt."""
    ids, loss = tokens.example(row)
    prompt = int(loss.argmax())
    assert loss.tolist() == [i >= prompt for i in range(len(ids))]
    return ids, prompt


def examples(folder: Path) -> Tokens:
    """Make 60 examples of various lengths; a response repeats the last words of its prompt."""
    tokenizer = load_tokenizer(ModelSpec(path=str(folder)))
    rows = []
    for i, sentence in enumerate(sentences(60, seed=2)):
        words = sentence.split()
        prompt = tokenizer(f"Repeat: {' '.join(words)}\n")["input_ids"]
        response = tokenizer(" ".join(words[-1 - i % 4 :]))["input_ids"]
        rows.append(([*prompt, *response, tokenizer.eos_token_id], len(prompt)))
    return pack(rows)
