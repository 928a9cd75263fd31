"""Prepare the data of a sweep: from its data section to token arrays that all trials share."""

from __future__ import annotations

from typing import Any

from lorasweep.data.cpt import pack_documents
from lorasweep.data.ift import tokenise_instructions
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.sources import read_source
from lorasweep.data.stored import Recipe, hash_tokenizer
from lorasweep.data.stream import sample_documents
from lorasweep.data.tokens import TrainingData, check_vocabulary
from lorasweep.errors import DataError, SpecError
from lorasweep.spec.sweep import DataSpec

DEFAULT_SEQ_LEN = 1024


def sequence_length(spec: DataSpec, positions: int) -> int:
    """Choose the sequence length; by default the model's positions, at most 1024.

    Raises:
        SpecError: the sweep asks for more positions than the model has.
    """
    if spec.seq_len is None:
        return min(positions, DEFAULT_SEQ_LEN)
    if spec.seq_len > positions:
        raise SpecError(
            [f"data.seq_len: must be at most the model's {positions} positions, got {spec.seq_len}"]
        )
    return spec.seq_len


def prepare_data(spec: DataSpec, tokenizer: Any, positions: int, vocabulary: int) -> TrainingData:
    """Read, split and tokenise a sweep's data; of streamed documents, the first ones.

    Args:
        spec: the sweep's data section.
        tokenizer: of the base model; it must have an end-of-text token.
        positions: longest sequence the model accepts, in tokens.
        vocabulary: tokens that the model embeds.

    Raises:
        DataError: the source cannot be read, or no example fits the sequence length.
        SpecError: the sequence is longer than the model's positions.
    """
    seq_len = sequence_length(spec, positions)
    source = sample_documents(spec, tokenizer) if spec.streaming else read_source(spec, tokenizer)
    notes = [*source.notes]
    if spec.streaming:
        notes.append(f"estimated from the first {len(source.train):,} documents of the stream")
    rows: tuple[int, ...] = ()
    if source.kind == "documents":
        train = pack_documents(source.train, tokenizer, seq_len)
        heldout = pack_documents(source.heldout, tokenizer, seq_len)
    else:
        made = tokenise_instructions(source.train, tokenizer, seq_len)
        apart = tokenise_instructions(source.heldout, tokenizer, seq_len)
        train, heldout, rows = made.tokens, apart.tokens, made.rows
        if made.cut:
            notes.append(
                f"{made.cut} of {len(source.train)} responses were cut at {seq_len} tokens"
            )
        left_out = (
            (made.too_long, len(source.train), "examples"),
            (apart.too_long, len(source.heldout), "held-out examples"),
        )
        for too_long, count, kind in left_out:
            left, reason = LeftOutRows(), f"their prompt fills the {seq_len} tokens of a sequence"
            for example in too_long:
                left.add(reason, example.row, example.file)
            notes += left.notes(count, kind)
    for name, tokens in (("training", train), ("held-out", heldout)):
        if len(tokens) == 0:
            raise DataError(
                f"data.seq_len: no {name} example fits into {seq_len} tokens with its response; "
                "give longer sequences"
            )
        check_vocabulary(int(tokens.ids_S.max()), vocabulary)
    return TrainingData(source.kind, train, heldout, seq_len, tuple(notes), rows)


def recipe_of(
    spec: DataSpec, tokenizer: Any, positions: int, vocabulary: int, sequences: int | None
) -> Recipe:
    """Describe how a streamed source becomes tokens, to compare with what is stored.

    Args:
        sequences: that the longest run needs; None for all there are.

    Raises:
        SpecError: the sequence is longer than the model's positions.
    """
    return Recipe(
        data=spec,
        tokenizer=hash_tokenizer(tokenizer),
        vocabulary=vocabulary,
        seq_len=sequence_length(spec, positions),
        sequences=sequences,
    )
