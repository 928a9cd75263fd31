"""What all writing has in common: its pieces, how many rows it takes at a time, where it ends."""

from __future__ import annotations

from typing import Any

from lorasweep.model.served import Served

PIECE = 8  # tokens that are written before it is looked who has ended
CACHE_BYTES = 2**28  # of one copy, within which more rows are written to than the batch size says


def rows_at_a_time(served: Served, batch_size: int) -> int:
    """Give how many rows each copy writes to: the batch size, or more where they take little."""
    return max(batch_size, CACHE_BYTES // served.cache_bytes)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Give the tokens that end a text, of which chat models have several."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)
