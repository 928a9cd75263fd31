"""A folder of tokenised documents, and the check that it is complete and up to date.

manifest.json    written last, so a folder without it is incomplete
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

UINT16_VOCABULARY = 2**16


class Recipe(Frozen):
    """Everything that tokens are made from; equal recipes make equal tokens.

    tokenizer: `hash_tokenizer` of it.
    vocabulary: tokens that the model embeds.
    seq_len: tokens of a full sequence.
    sequences: that the longest run needs; None for all there are.
    """

    data: DataSpec
    tokenizer: str
    vocabulary: int
    seq_len: int
    sequences: int | None

    @property
    def key(self) -> str:
        """Name of the folder; it depends on the sweep's data section alone."""
        data = self.data
        always = {"data_dir": data.data_dir, "streaming": data.streaming}
        return content_hash({**data.identity, **always})

    @property
    def dtype(self) -> str:
        """The narrowest type that holds the vocabulary."""
        return "uint16" if self.vocabulary <= UINT16_VOCABULARY else "int32"

    @property
    def wanted(self) -> int | None:
        """Tokens that the longest run needs; None for all there are."""
        return None if self.sequences is None else self.sequences * self.seq_len


class Manifest(Frozen):
    """Description of a folder of tokens.

    documents, tokens: for training.
    highest: the highest token id.
    fingerprint: hash of the tokens and of how they are cut into sequences.
    notes: sentences on what was left out, or is held out and trained on as well.
    """

    recipe: Recipe
    documents: int
    tokens: int
    highest: int
    fingerprint: str
    notes: tuple[str, ...] = ()


class TokenFolder:
    """Paths of the files in a folder of tokens."""

    def __init__(self, root: Path) -> None:
        """Build the paths; the folder need not exist."""
        self.root = root
        self.manifest = root / "manifest.json"
        self.train = root / "train.bin"
        self.heldout = root / "heldout.npz"


def hash_tokenizer(tokenizer: Any) -> str:
    """Hash what decides the tokens of a text; settings that each call overrides are left out."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {k: v for k, v in content.items() if k not in {"padding", "truncation"}}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    text = json.dumps([content, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_stored(root: Path, recipe: Recipe) -> TrainingData | None:
    """Open a folder of tokens; None if it is incomplete or was made from another recipe."""
    folder = TokenFolder(root)
    try:
        manifest = Manifest.model_validate_json(folder.manifest.read_text(encoding="utf-8"))
        size = folder.train.stat().st_size
        with folder.heldout.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            heldout = Tokens.of_documents(arrays["ids_S"], arrays["starts_N1"])
    except (OSError, BadZipFile, ValueError, KeyError):  # pydantic raises a ValueError
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
        return manifest.notes
    return (
        *manifest.notes,
        f"the {manifest.documents:,} training documents hold {manifest.tokens:,} tokens and the "
        f"longest run takes {wanted:,}, so it sees them {wanted / manifest.tokens:.2f} times",
    )
