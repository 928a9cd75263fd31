"""Tokenised examples, made once per sweep and shared by all trials: as flat arrays, or in a file.

Shape legend: N examples, S tokens in all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorasweep.errors import DataError


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
    def lengths_N(self) -> NDArray[np.int64]:
        """Count the tokens of each example."""
        return np.diff(self.starts_N1)

    @cached_property
    def loss_tokens_N(self) -> NDArray[np.int64]:
        """Count the tokens of each example that carry loss; the first one has nothing before it."""
        targets: NDArray[np.int64] = self.lengths_N - np.maximum(self.prompts_N, 1)
        return targets

    @cached_property
    def fingerprint(self) -> str:
        """Hash the content, so that a sweep notices when its data has changed."""
        digest = hashlib.sha256()
        for array in (self.ids_S, self.starts_N1, self.prompts_N):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class StoredTokens:
    """Hold N sequences of documents in a file, which each process maps for itself.

    It is pickled as what stands here, never as the tokens, so that Ray's object store and every
    worker get the name of the file. The sequences are those of `pack_documents`: full ones, cut
    from a stream, and what is left at its end.

    path: of the file, on storage that all nodes see.
    size: S, the tokens in it.
    seq_len: tokens of a full sequence.
    dtype: of a token in the file, `uint16` or `int32`.
    fingerprint: hash of the content, reckoned while it was written.
    """

    path: str
    size: int
    seq_len: int
    dtype: str
    fingerprint: str

    def __reduce__(self) -> tuple[type[StoredTokens], tuple[object, ...]]:
        """Pickle the fields alone, since a mapped file would be pickled with all its content."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def __len__(self) -> int:
        """Count the sequences."""
        return -(-self.size // self.seq_len) if self.size > 1 else 0

    def example(self, index: int) -> tuple[NDArray[Any], int]:
        """Give one sequence's token ids and 0, since a document has no prompt."""
        return self._ids_S[self.starts_N1[index] : self.starts_N1[index + 1]], 0

    @cached_property
    def _ids_S(self) -> NDArray[Any]:
        return np.asarray(np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.size,)))

    @cached_property
    def starts_N1(self) -> NDArray[np.int64]:
        """Reckon where each sequence begins; a lone last token takes the one before it along."""
        starts = np.minimum(np.arange(len(self) + 1, dtype=np.int64) * self.seq_len, self.size)
        if len(self) > 1 and self.size % self.seq_len == 1:
            starts[-2] -= 1
        return starts

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Count the tokens of each sequence."""
        return np.diff(self.starts_N1)

    @cached_property
    def loss_tokens_N(self) -> NDArray[np.int64]:
        """Count the tokens of each sequence that carry loss: all but the first."""
        return self.lengths_N - 1


@dataclass(frozen=True)
class TrainingData:
    """Hold everything that trials read.

    kind: `instruction` or `documents`.
    train: what trials train on; stored where it was streamed.
    heldout: what the response loss is measured on.
    seq_len: tokens per sequence at most.
    notes: what was cut, left out or repeated, in sentences.
    """

    kind: str
    train: Tokens | StoredTokens
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
    # Verbose, it would warn of texts longer than the model's positions, which are cut later on.
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    if special and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        return [row[:-1] for row in rows]
    return rows


def check_vocabulary(highest: int, vocabulary: int) -> None:
    """See that the model embeds every token.

    Raises:
        DataError: it does not, so the tokenizer is another model's.
    """
    if highest >= vocabulary:
        raise DataError(
            f"model.path: the tokenizer writes token {highest} for these data and the model "
            f"embeds only {vocabulary}; they do not belong together"
        )
