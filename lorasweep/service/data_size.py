"""Find out how many examples and tokens a sweep's data hold, without downloading any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.published import PUBLISHED_DATA
from lorasweep.data.sources import check_local_files
from lorasweep.errors import ModelError
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.presets import EMBEDDED
from lorasweep.spec.sweep import DataSpec, ModelSpec


@dataclass(frozen=True)
class DataSize:
    """Size of training data; None where it cannot be known here.

    source: where the numbers come from, or why there are none, as half a sentence.
    notes: sentences on what was cut or left out.
    """

    examples: int | None
    tokens: int | None
    source: str
    notes: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> DataSize:
        """Scale the size down to the first `limit` examples."""
        if limit is None or self.examples is None or limit >= self.examples:
            return self
        tokens = None if self.tokens is None else round(self.tokens * limit / self.examples)
        return DataSize(limit, tokens, f"{self.source}, the first {limit:,} examples")


def measure_data(data: DataSpec, model: ModelSpec, positions: int, vocabulary: int) -> DataSize:
    """Read and tokenise local data; take the published numbers of well-known data on the hub.

    Args:
        positions: longest sequence that the model takes, in tokens.
        vocabulary: tokens that the model embeds.

    Raises:
        UsageError: local data cannot be read.
    """
    check_local_files(data)
    is_local = data.path in EMBEDDED or Path(data.path).expanduser().exists()
    if is_local and data.streaming:
        return DataSize(None, None, "unknown, since a plan does not read streamed data")
    if is_local:
        try:
            tokenizer = load_tokenizer(model)
        except ModelError:
            return DataSize(
                None, None, f"unknown, since the tokenizer of {model.path} is not on this machine"
            )
        read = prepare_data(data, tokenizer, positions, vocabulary)
        tokens = int(read.train.lengths_N.sum())
        return DataSize(len(read.train), tokens, "read and tokenised", read.notes)
    published = PUBLISHED_DATA.get(data.path)
    if published is None:
        return DataSize(
            None,
            None,
            f"unknown, since a plan downloads nothing and {data.path} is not on this machine",
        )
    known = DataSize(published.examples, published.tokens, "as published, not read")
    return known.limited(data.limit)
