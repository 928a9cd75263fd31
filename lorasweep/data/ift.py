"""Instruction finetuning: examples as tokens, with loss on the responses only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorasweep.data.borders import tokenise_parts
from lorasweep.data.example import Example
from lorasweep.data.tokens import Tokens


@dataclass(frozen=True)
class Instructions:
    """Tokenised examples, and what did not fit.

    rows: of the examples in their file, from 1.
    cut: how many lost an end that carried loss.
    too_long: what was left out, since no token with loss fits.
    """

    tokens: Tokens
    rows: tuple[int, ...]
    cut: int
    too_long: list[Example]


def tokenise_instructions(examples: list[Example], tokenizer: Any, seq_len: int) -> Instructions:
    """Tokenise examples, each with EOS unless it has an end, at most `seq_len` tokens each."""
    kept: list[tuple[list[int], list[bool]]] = []
    rows: list[int] = []
    too_long: list[Example] = []
    cut = 0
    masked = tokenise_parts(examples, tokenizer)
    for example, (own_ids, own_loss) in zip(examples, masked, strict=True):
        end = [] if example.ends else [tokenizer.eos_token_id]
        ids, loss = [*own_ids, *end], [*own_loss, *(True for _ in end)]
        # Nothing comes before the first token that it could be predicted from.
        if not any(loss[1:seq_len]):
            too_long.append(example)
            continue
        cut += any(loss[seq_len:])
        kept.append((ids[:seq_len], loss[:seq_len]))
        rows.append(example.row)
    return Instructions(Tokens.pack(kept), tuple(rows), cut, too_long)
