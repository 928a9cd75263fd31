"""Instruction finetuning: prompts and responses as tokens, with loss on the responses only."""

from __future__ import annotations

from typing import Any

from lorasweep.data.sources import Example
from lorasweep.data.tokens import Tokens, token_ids


def tokenise_instructions(
    examples: list[Example], tokenizer: Any, seq_len: int
) -> tuple[Tokens, int, int]:
    """Tokenise examples as prompt + response + EOS, at most `seq_len` tokens each.

    Prompt and response are tokenised separately, as lm-eval does with context and continuation, so
    that no token spans their border.

    Returns:
        The tokens, the number of responses cut at `seq_len`, and the number of examples left out
        because their prompt alone fills it.
    """
    prompts = token_ids(tokenizer, [e.prompt for e in examples], special=True)
    # A chat template has already added BOS, so the tokenizer must not add another.
    bare = token_ids(tokenizer, [e.prompt for e in examples], special=False)
    responses = token_ids(tokenizer, [e.response for e in examples], special=False)
    kept: list[tuple[list[int], int]] = []
    cut = 0
    for example, framed, plain, response in zip(examples, prompts, bare, responses, strict=True):
        prompt = plain if example.ends else framed
        end = [] if example.ends else [tokenizer.eos_token_id]
        ids = [*prompt, *response, *end]
        if max(len(prompt), 1) >= min(len(ids), seq_len):
            continue
        cut += len(ids) > seq_len
        kept.append((ids[:seq_len], len(prompt)))
    return Tokens.pack(kept), cut, len(examples) - len(kept)
