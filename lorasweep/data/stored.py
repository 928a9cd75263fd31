"""Tokens of documents in a folder: what they were made from, and whether they are whole.

manifest.json    written last, so that without it the rest is not whole
train.bin        token ids of the training documents, end to end
heldout.npz      the held-out documents, as `Tokens`
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lorasweep.data.tokens import StoredTokens, Tokens, TrainingData
from lorasweep.spec.sweep import DataSpec
from lorasweep.spec.trial import Frozen, content_hash

NARROW = 2**16  # tokens that two bytes tell apart


class Recipe(Frozen):
    """Say what tokens are made from; equal recipes make equal tokens.

    tokenizer: hash of all that decides how it splits a text.
    vocabulary: tokens that the model embeds.
    seq_len: tokens of a full sequence.
    sequences: that the longest run takes; None where it takes all there are.
    """

    data: DataSpec
    tokenizer: str
    vocabulary: int
    seq_len: int
    sequences: int | None

    @property
    def key(self) -> str:
        """Name the folder: one for each data section of a sweep, whatever else has changed."""
        return content_hash(self.data.model_dump(mode="json"))

    @property
    def dtype(self) -> str:
        """Give the narrowest type that holds the vocabulary."""
        return "uint16" if self.vocabulary <= NARROW else "int32"

    @property
    def wanted(self) -> int | None:
        """Count the tokens that the longest run takes."""
        return None if self.sequences is None else self.sequences * self.seq_len


class Manifest(Frozen):
    """Say what a folder of tokens holds.

    documents: that were trained on; tokens: of them.
    highest: token id.
    fingerprint: hash of the tokens and how they are cut.
    """

    recipe: Recipe
    documents: int
    tokens: int
    highest: int
    fingerprint: str


class Folder:
    """Name the files of a folder of tokens."""

    def __init__(self, root: Path) -> None:
        """Name them; the folder need not be there."""
        self.root = root
        self.manifest = root / "manifest.json"
        self.train = root / "train.bin"
        self.heldout = root / "heldout.npz"


def hash_tokenizer(tokenizer: Any) -> str:
    """Hash what decides the tokens of a text; what a call may set for itself is left out."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {k: v for k, v in content.items() if k not in {"padding", "truncation"}}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    text = json.dumps([content, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_stored(root: Path, recipe: Recipe) -> TrainingData | None:
    """Read the tokens that a folder holds; None where they are not whole, or of another recipe."""
    folder = Folder(root)
    try:
        manifest = Manifest.model_validate_json(folder.manifest.read_text(encoding="utf-8"))
        size = folder.train.stat().st_size
        with folder.heldout.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            heldout = Tokens(arrays["ids_S"], arrays["starts_N1"], arrays["prompts_N"])
    except (OSError, BadZipFile, ValueError, KeyError):  # pydantic's are of ValueError
        return None
    if manifest.recipe != recipe or size != manifest.tokens * np.dtype(recipe.dtype).itemsize:
        return None
    train = StoredTokens(
        str(folder.train.resolve()),
        manifest.tokens,
        recipe.seq_len,
        recipe.dtype,
        manifest.fingerprint,
    )
    return TrainingData("documents", train, heldout, recipe.seq_len, _notes(manifest))


def _notes(manifest: Manifest) -> tuple[str, ...]:
    wanted = manifest.recipe.wanted
    if wanted is None or manifest.tokens >= wanted:
        return ()
    return (
        f"the {manifest.documents:,} training documents hold {manifest.tokens:,} tokens and the "
        f"longest run takes {wanted:,}, so it sees them {wanted / manifest.tokens:.2f} times",
    )
