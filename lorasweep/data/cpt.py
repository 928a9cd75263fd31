"""Continued pretraining: documents joined end to end with EOS, cut into full sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from lorasweep.data.example import Example
from lorasweep.data.tokens import Tokens, sequence_starts, token_ids


def join_documents(texts: list[str], tokenizer: Any) -> list[int]:
    """Tokenise documents and join them, with EOS after each."""
    end = tokenizer.eos_token_id
    return [token for ids in token_ids(tokenizer, texts, special=False) for token in (*ids, end)]


def pack_documents(examples: list[Example], tokenizer: Any, seq_len: int) -> Tokens:
    """Join documents with EOS and cut them into sequences of `seq_len` tokens.

    No token is lost or invented; `sequence_starts` decides how the last sequence is cut.
    """
    stream = join_documents([example.text for example in examples], tokenizer)
    starts_N1 = sequence_starts(len(stream), seq_len)
    return Tokens.of_documents(np.asarray(stream[: starts_N1[-1]], dtype=np.int32), starts_N1)
