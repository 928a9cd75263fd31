"""How many examples and tokens a sweep's data hold, without downloading any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.published import PUBLISHED_DATA
from lorasweep.data.sources import find_source
from lorasweep.errors import ModelError
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.presets import EMBEDDED
from lorasweep.spec.sweep import DataSpec, ModelSpec


@dataclass(frozen=True)
class Extent:
    """Hold how large training data are; None where it cannot be known here.

    source: where the numbers come from, or why there are none, as half a sentence.
    """

    examples: int | None
    tokens: int | None
    source: str

    def scaled(self, limit: int | None) -> Extent:
        """Give the extent of the first so many examples."""
        if limit is None or self.examples is None or limit >= self.examples:
            return self
        tokens = None if self.tokens is None else round(self.tokens * limit / self.examples)
        return Extent(limit, tokens, f"{self.source}, the first {limit:,} examples")


def measure_extent(data: DataSpec, model: ModelSpec, positions: int, vocabulary: int) -> Extent:
    """Read and tokenise data that lie here; of published data on the hub take the known numbers.

    Args:
        positions: longest sequence that the model takes, in tokens.
        vocabulary: tokens that the model embeds.

    Raises:
        UsageError: data that lie here cannot be read.
    """
    find_source(data)
    here = data.path in EMBEDDED or Path(data.path).expanduser().exists()
    if here and data.streaming:
        return Extent(None, None, "unknown, since a plan does not read what is streamed")
    if here:
        try:
            tokenizer = load_tokenizer(model)
        except ModelError:
            return Extent(None, None, f"unknown, since the tokenizer of {model.path} is not here")
        train = prepare_data(data, tokenizer, positions, vocabulary).train
        return Extent(len(train), int(train.lengths_N.sum()), "read and tokenised")
    published = PUBLISHED_DATA.get(data.path)
    if published is None:
        return Extent(
            None, None, f"unknown, since a plan downloads nothing and {data.path} is not here"
        )
    known = Extent(published.examples, published.tokens, "as published, not read")
    return known.scaled(data.limit)
