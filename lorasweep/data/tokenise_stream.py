"""Tokenise a stream of documents into a file, in constant memory.

Shape legend: S tokens of a batch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorasweep.data.cpt import join_documents, pack_documents
from lorasweep.data.example import Example
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.sources import in_both
from lorasweep.data.stored import Manifest, Recipe, TokenFolder
from lorasweep.data.stream import split_documents
from lorasweep.data.tokens import Tokens, check_vocabulary
from lorasweep.errors import DataError
from lorasweep.store.paths import write_atomically

BATCH = 2**19  # characters tokenised at a time; enough to keep many cores busy


@dataclass(frozen=True)
class StreamProgress:
    """How far a stream has been read.

    documents, tokens: read so far, for training.
    wanted: tokens that the longest run needs; None for all there are.
    seconds: since reading began.
    """

    documents: int
    tokens: int
    wanted: int | None
    seconds: float


def tokenise_stream(
    root: Path, recipe: Recipe, tokenizer: Any, on_progress: Callable[[StreamProgress], None]
) -> None:
    """Tokenise documents into a folder until there are enough for the longest run.

    They are joined as by `pack_documents`. All held-out documents are read, even if the training
    documents suffice before. The manifest is written last, so a folder without it is incomplete.

    Args:
        root: the folder; what it held before is lost.
        on_progress: called after each batch.

    Raises:
        DataError: the source cannot be read, or not to its end; the tokenizer is another model's;
            or the disk is full.
    """
    folder, spec = TokenFolder(root), recipe.data
    started = time.monotonic()
    heldout: list[Example] = []
    texts: list[str] = []
    length = 0
    left_out, seen = LeftOutRows(), _Overlap()
    with (
        _discarded_on_error(folder),
        _Appender(folder.train, recipe, tokenizer) as appender,
        closing(split_documents(spec, tokenizer, left_out)) as documents,
    ):
        for held, document in documents:
            complete = len(heldout) == spec.heldout_examples or (
                spec.is_held_out_apart and not held
            )
            if held:
                heldout.append(document)
                seen.hold_out(document.text)
            elif not appender.full:
                texts.append(document.text)
                length += len(document.text)
                seen.train(document.text, all_held_out=complete)
            elif complete:
                break
            if length >= BATCH:
                appender.append(texts)
                texts, length = [], 0
                seconds = time.monotonic() - started
                on_progress(
                    StreamProgress(appender.documents, appender.tokens, recipe.wanted, seconds)
                )
        appender.append(texts)
        heldout_tokens = pack_documents(heldout, tokenizer, recipe.seq_len)
        _check(appender, heldout_tokens, recipe)
        with _writing(folder.root, appender.tokens, recipe):
            appender.sync()
            _save(heldout_tokens, folder.heldout)
            rows = appender.documents + len(heldout) + left_out.total
            notes = (*left_out.notes(rows), *seen.notes(len(heldout)))
            manifest = appender.manifest(notes)
            write_atomically(folder.manifest, manifest.model_dump_json(indent=2) + "\n")


class _Overlap:
    """Finds held-out texts that are trained on as well, in constant memory.

    It keeps hashes of the held-out texts, and of those that are trained before the last of them.
    """

    def __init__(self) -> None:
        self._heldout: dict[bytes, int] = {}
        self._trained: set[bytes] = set()
        self._both: set[bytes] = set()

    def hold_out(self, text: str) -> None:
        key = _key(text)
        self._heldout[key] = self._heldout.get(key, 0) + 1
        if key in self._trained:
            self._both.add(key)

    def train(self, text: str, *, all_held_out: bool) -> None:
        key = _key(text)
        if key in self._heldout:
            self._both.add(key)
        if not all_held_out:
            self._trained.add(key)

    def notes(self, heldout: int) -> list[str]:
        count = sum(self._heldout[key] for key in self._both)
        return [in_both(count, heldout)] if count else []


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class _Appender:
    """Appends documents to a file of tokens, and keeps what its manifest needs."""

    def __init__(self, path: Path, recipe: Recipe, tokenizer: Any) -> None:
        self._path, self._recipe, self._tokenizer = path, recipe, tokenizer
        self._digest = hashlib.sha256()
        self.documents = self.tokens = 0
        self.highest = -1

    def __enter__(self) -> _Appender:
        self._file = self._path.open("wb", buffering=0)  # a buffer would fail again in close()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def full(self) -> bool:
        wanted = self._recipe.wanted
        return wanted is not None and self.tokens >= wanted

    def append(self, texts: list[str]) -> None:
        """Tokenise documents and append as many of their tokens as are still wanted."""
        if not texts or self.full:
            return
        stream = join_documents(texts, self._tokenizer)
        wanted = self._recipe.wanted
        room = None if wanted is None else wanted - self.tokens
        ids_S = np.asarray(stream[:room], dtype=np.int64)
        self.highest = max(self.highest, int(ids_S.max()))
        check_vocabulary(self.highest, self._recipe.vocabulary)
        content = ids_S.astype(self._recipe.dtype).tobytes()
        with _writing(self._path.parent, self.tokens, self._recipe):
            left = memoryview(content)
            while left:  # an unbuffered write may be partial
                left = left[self._file.write(left) :]
        self._digest.update(content)
        self.documents += len(texts)
        self.tokens += len(ids_S)

    def sync(self) -> None:
        """Flush to disk, so that the manifest cannot be there before the tokens after a crash."""
        os.fsync(self._file.fileno())

    def manifest(self, notes: tuple[str, ...]) -> Manifest:
        recipe = self._recipe
        self._digest.update(f"{self.tokens} {recipe.seq_len} {recipe.dtype}".encode())
        return Manifest(
            recipe=recipe,
            documents=self.documents,
            tokens=self.tokens,
            highest=self.highest,
            fingerprint=self._digest.hexdigest()[:16],
            notes=notes,
        )


def _check(appender: _Appender, heldout: Tokens, recipe: Recipe) -> None:
    for name, tokens in (("training", appender.tokens), ("held-out", len(heldout.ids_S))):
        if tokens < 2:
            raise DataError(
                f"data: must hold at least one {name} document with text in it, got none in "
                f"{recipe.data.path!r}"
            )
    check_vocabulary(int(heldout.ids_S.max()), recipe.vocabulary)


def _save(tokens: Tokens, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, ids_S=tokens.ids_S, starts_N1=tokens.starts_N1)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _discarded_on_error(folder: TokenFolder) -> Iterator[None]:
    """Remove the old manifest before anything is written, and a partial file after an error."""
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.manifest.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        folder.train.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(folder: Path, tokens: int, recipe: Recipe) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        size = np.dtype(recipe.dtype).itemsize
        need = "all tokens" if recipe.wanted is None else f"{recipe.wanted:,} tokens"
        raise DataError(
            f"--out: the results folder must hold {need} of {size} bytes each, and after "
            f"{tokens:,} of them {folder} takes no more ({error.strerror}); make room, choose "
            "another --out, or set data.limit"
        ) from error
