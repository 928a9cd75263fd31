"""Continued pretraining: documents end to end with EOS between them, cut into full sequences."""

from __future__ import annotations

from typing import Any

from lorasweep.data.sources import Example
from lorasweep.data.tokens import Tokens, token_ids


def pack_documents(examples: list[Example], tokenizer: Any, seq_len: int) -> Tokens:
    """Join documents with EOS after each and cut the stream every `seq_len` tokens.

    No token is lost or invented: the last sequence may be shorter, and one that would be a single
    token, which predicts nothing, takes the last token of the sequence before it.
    """
    stream: list[int] = []
    for ids in token_ids(tokenizer, [e.response for e in examples], special=False):
        stream += [*ids, tokenizer.eos_token_id]
    sequences = [stream[i : i + seq_len] for i in range(0, len(stream), seq_len)]
    if len(sequences) > 1 and len(sequences[-1]) == 1:
        sequences[-1].insert(0, sequences[-2].pop())
    return Tokens.pack([(sequence, 0) for sequence in sequences if len(sequence) > 1])
