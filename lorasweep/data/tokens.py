"""Tokenised examples, made once per sweep and shared by all trials, in memory or in a file.

Shape legend: N examples, S tokens in all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorasweep.errors import DataError

MaskedIds = tuple[NDArray[Any], NDArray[np.bool_]]  # token ids, and which of them carry loss


@dataclass(frozen=True)
class Tokens:
    """N examples end to end, in plain arrays that Ray's object store shares without a copy.

    ids_S: token ids, all examples one after the other.
    starts_N1: where each example begins; the last entry is S.
    loss_S: whether each token carries loss; the first of an example never does, as nothing comes
        before it that it could be predicted from.
    """

    ids_S: NDArray[np.int32]
    starts_N1: NDArray[np.int64]
    loss_S: NDArray[np.bool_]

    @classmethod
    def pack(cls, examples: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> Tokens:
        """Lay out examples, each given by its token ids and by which of them carry loss."""
        lengths = [len(ids) for ids, _ in examples]
        return cls(
            ids_S=np.asarray([token for ids, _ in examples for token in ids], dtype=np.int32),
            starts_N1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            loss_S=np.asarray([one for _, loss in examples for one in loss], dtype=np.bool_),
        )

    @classmethod
    def of_documents(cls, ids_S: NDArray[np.int32], starts_N1: NDArray[np.int64]) -> Tokens:
        """Take sequences of documents, which carry loss everywhere."""
        return cls(ids_S, starts_N1, np.ones(len(ids_S), dtype=np.bool_))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.starts_N1) - 1

    def example(self, index: int) -> MaskedIds:
        """Slice out one example's token ids, with which of them carry loss."""
        part = slice(self.starts_N1[index], self.starts_N1[index + 1])
        return self.ids_S[part], self.loss_S[part]

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Number of tokens of each example."""
        return np.diff(self.starts_N1)

    @cached_property
    def loss_tokens_N(self) -> NDArray[np.int64]:
        """Number of tokens of each example that carry loss, which the first token never does."""
        predicted_S = self.loss_S.copy()
        predicted_S[self.starts_N1[:-1]] = False
        totals_S1 = np.concatenate([[0], np.cumsum(predicted_S)])
        counts: NDArray[np.int64] = np.diff(totals_S1[self.starts_N1]).astype(np.int64)
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, by which a sweep notices that its data has changed.

        Where loss is on all that follows a prompt, only the lengths of the prompts are hashed, as
        they were when there was no other kind of loss; so sweeps of that time can go on.
        """
        prompts_N = np.asarray(
            [_leading(self.example(index)[1]) for index in range(len(self))], dtype=np.int32
        )
        firsts_S = np.repeat(self.starts_N1[:-1] + prompts_N, self.lengths_N)
        follows_prompt = np.array_equal(self.loss_S, np.arange(len(self.ids_S)) >= firsts_S)
        arrays = [self.ids_S, self.starts_N1, prompts_N, *([] if follows_prompt else [self.loss_S])]
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def _leading(loss: NDArray[np.bool_]) -> int:
    """Count the tokens before the first one with loss."""
    return int(loss.argmax()) if loss.any() else len(loss)


@dataclass(frozen=True)
class StoredTokens:
    """N sequences of documents in a file that each process memory-maps; the form of `Tokens`.

    Pickling keeps these fields and not the tokens, so Ray's object store and the workers get only
    the name of the file. The sequences are those of `pack_documents`.

    path: of the file, on storage that all nodes see.
    size: S, the tokens in it.
    seq_len: tokens of a full sequence.
    dtype: of a token in the file, `uint16` or `int32`.
    fingerprint: hash of the content, computed while it was written.
    """

    path: str
    size: int
    seq_len: int
    dtype: str
    fingerprint: str

    def __reduce__(self) -> tuple[type[StoredTokens], tuple[object, ...]]:
        """Pickle the fields alone; a memory map would be pickled with its content."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.starts_N1) - 1

    def example(self, index: int) -> MaskedIds:
        """Slice out one sequence's token ids, all of which carry loss."""
        ids = self._ids_S[self.starts_N1[index] : self.starts_N1[index + 1]]
        return ids, np.ones(len(ids), dtype=np.bool_)

    @cached_property
    def _ids_S(self) -> NDArray[Any]:
        return np.asarray(np.memmap(self.path, dtype=self.dtype, mode="r", shape=(self.size,)))

    @cached_property
    def starts_N1(self) -> NDArray[np.int64]:
        """Where each sequence begins; the last entry is S."""
        return sequence_starts(self.size, self.seq_len)

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Number of tokens of each sequence."""
        return np.diff(self.starts_N1)

    @cached_property
    def loss_tokens_N(self) -> NDArray[np.int64]:
        """Number of tokens of each sequence that carry loss: all but the first."""
        return self.lengths_N - 1


@dataclass(frozen=True)
class TrainingData:
    """Tokenised data of a study.

    kind: `instruction` or `documents`.
    train: examples to train on; in a file if they were streamed.
    heldout: examples on which the response loss is measured.
    seq_len: the most tokens of a sequence.
    notes: sentences on what was cut, left out or repeated.
    rows: of the training examples in their file, from 1; none for documents.
    """

    kind: str
    train: Tokens | StoredTokens
    heldout: Tokens
    seq_len: int
    notes: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of both parts."""
        return self.train.fingerprint + self.heldout.fingerprint


def sequence_starts(size: int, seq_len: int) -> NDArray[np.int64]:
    """Cut a stream of tokens into sequences; the last may be shorter.

    A last sequence of one token would predict nothing, so it takes the last token of the sequence
    before it. A stream of one token makes no sequence.

    Returns:
        Where each sequence begins, and where the last one ends.
    """
    count = -(-size // seq_len) if size > 1 else 0
    starts = np.minimum(np.arange(count + 1, dtype=np.int64) * seq_len, size)
    if count > 1 and size % seq_len == 1:
        starts[-2] -= 1
    return starts


def token_ids(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int]]:
    """Tokenise texts.

    Args:
        special: let the tokenizer add what it puts before a text, such as BOS. An EOS that it
            appends is removed, since only complete responses and documents get one.
    """
    if not texts:
        return []
    # Otherwise it warns of texts longer than the model's positions, which are cut later anyway.
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    if special and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        return [row[:-1] for row in rows]
    return rows


def check_vocabulary(highest: int, vocabulary: int) -> None:
    """Check that the model embeds every token.

    Raises:
        DataError: it does not, so the tokenizer belongs to another model.
    """
    if highest >= vocabulary:
        raise DataError(
            f"model.path: the tokenizer writes token {highest} for these data and the model "
            f"embeds only {vocabulary}; they do not belong together"
        )
