"""Tokenised examples as flat arrays, made once per sweep and shared by all trials.

Shape legend: N examples, S tokens in all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Hold N examples end to end; plain arrays, so that Ray's object store shares them uncopied.

    ids_S: token ids, all examples one after the other.
    starts_N1: where each example begins, and at the end S.
    prompts_N: leading tokens of each example that carry no loss.
    """

    ids_S: NDArray[np.int32]
    starts_N1: NDArray[np.int64]
    prompts_N: NDArray[np.int32]

    @classmethod
    def pack(cls, examples: list[tuple[list[int], int]]) -> Tokens:
        """Lay out examples, each its token ids and the length of its prompt."""
        lengths = [len(ids) for ids, _ in examples]
        flat = [token for ids, _ in examples for token in ids]
        return cls(
            ids_S=np.asarray(flat, dtype=np.int32),
            starts_N1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            prompts_N=np.asarray([prompt for _, prompt in examples], dtype=np.int32),
        )

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.prompts_N)

    def example(self, index: int) -> tuple[NDArray[np.int32], int]:
        """Give one example's token ids and the length of its prompt."""
        ids = self.ids_S[self.starts_N1[index] : self.starts_N1[index + 1]]
        return ids, int(self.prompts_N[index])

    @cached_property
    def targets_N(self) -> NDArray[np.int64]:
        """Count the tokens of each example that carry loss; the first one has nothing before it."""
        lengths = np.diff(self.starts_N1)
        targets: NDArray[np.int64] = lengths - np.maximum(self.prompts_N, 1)
        return targets

    @cached_property
    def fingerprint(self) -> str:
        """Hash the content, so that a sweep notices when its data has changed."""
        digest = hashlib.sha256()
        for array in (self.ids_S, self.starts_N1, self.prompts_N):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TrainingData:
    """Hold everything that trials read.

    kind: `instruction` or `documents`.
    seq_len: tokens per sequence at most.
    notes: what was cut or left out, in sentences.
    """

    kind: str
    train: Tokens
    heldout: Tokens
    seq_len: int
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash both parts."""
        return self.train.fingerprint + self.heldout.fingerprint


def token_ids(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int]]:
    """Tokenise texts; `special` lets the tokenizer add what it puts before a text, such as BOS.

    Tokenizers that also append EOS have it removed, since the end is ours to place.
    """
    if not texts:
        return []
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=special)["input_ids"]
    if special and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        return [row[:-1] for row in rows]
    return rows
