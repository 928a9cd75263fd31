"""Sizes of published data sets, for planning without downloading them.

As Biderman et al. (2024, v2, section 3) count them, with the tokenizer of Llama 2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedData:
    """Size of a published data set.

    kind: `instruction` or `documents`.
    examples: rows of its hub page; None where only tokens are counted.
    tokens: of prompts and responses, or of documents; None where nobody has published them.
    """

    kind: str
    examples: int | None
    tokens: int | None


PUBLISHED_DATA = {
    "ise-uiuc/Magicoder-Evol-Instruct-110K": PublishedData("instruction", 111_183, 72_970_000),
    "meta-math/MetaMathQA": PublishedData("instruction", 395_000, 103_000_000),
    "allenai/tulu-v2-sft-mixture": PublishedData("instruction", 326_154, None),
    "open-web-math/open-web-math": PublishedData("documents", None, 14_700_000_000),
    # The Python subset, which Biderman et al. cut at 20 billion tokens.
    "bigcode/starcoderdata": PublishedData("documents", None, 20_000_000_000),
}
