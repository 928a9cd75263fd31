"""The training data of a sweep as they will be trained: texts, tokens, and which carry loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from lorasweep.data.tokens import MaskedIds, StoredTokens, Tokens
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import Frozen


class Part(Frozen):
    """A run of tokens that all carry loss, or none of them, as text."""

    text: str
    loss: bool


class ShownExample(Frozen):
    """One example as it is trained.

    row: in its file, from 1; None for documents, which are joined end to end.
    parts: its text, special tokens included.
    ids: token ids.
    loss: which of them carry loss. The first never does, as nothing comes before it.
    """

    row: int | None
    parts: tuple[Part, ...]
    ids: tuple[int, ...]
    loss: tuple[bool, ...]


class Size(Frozen):
    """Size of training or held-out data.

    loss_tokens: those that carry loss.
    """

    examples: int
    tokens: int
    loss_tokens: int


class DataView(Frozen):
    """The data of one domain of a sweep.

    domain: empty where a sweep has one.
    kind: `instruction` or `documents`.
    notes: sentences on what was cut, left out, added or not rendered.
    shown: the first training examples.
    """

    domain: str
    path: str
    kind: str
    seq_len: int
    train: Size
    heldout: Size
    notes: tuple[str, ...]
    shown: tuple[ShownExample, ...]


def view_data(spec: SweepSpec, examples: int) -> tuple[DataView, ...]:
    """Read and tokenise the data of each domain, as `tune` would; start nothing.

    Args:
        examples: how many to show.

    Raises:
        UsageError: the model's tokenizer or the data cannot be read.
    """
    from lorasweep.data.prepare import prepare_data
    from lorasweep.data.sources import check_local_files
    from lorasweep.model.base import BaseReader

    base, views = BaseReader(spec.model), {}
    for study in spec.studies:
        if study.domain in views:
            continue
        check_local_files(study.data)
        facts = base.facts
        data = prepare_data(study.data, base.tokenizer, facts.positions, facts.vocabulary)
        shown = [
            _shown(data.train.example(i), data.rows[i] if data.rows else None, base.tokenizer)
            for i in range(min(examples, len(data.train)))
        ]
        views[study.domain] = DataView(
            domain=study.domain,
            path=study.data.path,
            kind=data.kind,
            seq_len=data.seq_len,
            train=_size(data.train),
            heldout=_size(data.heldout),
            notes=data.notes,
            shown=tuple(shown),
        )
    return tuple(views.values())


def _size(tokens: Tokens | StoredTokens) -> Size:
    return Size(
        examples=len(tokens),
        tokens=int(tokens.lengths_N.sum()),
        loss_tokens=int(tokens.loss_tokens_N.sum()),
    )


def _shown(example: MaskedIds, row: int | None, tokenizer: Any) -> ShownExample:
    ids, loss = (values.tolist() for values in example)
    loss[0] = False
    return ShownExample(
        row=row, parts=tuple(decoded_parts(ids, loss, tokenizer)), ids=tuple(ids), loss=tuple(loss)
    )


def decoded_parts(ids: list[int], loss: list[bool], tokenizer: Any) -> Iterator[Part]:
    """Decode runs of tokens, each as the text that it adds to what is before it.

    Decoded alone, a run would lose the blank that SentencePiece begins a text with.
    """
    before, end = "", 0
    for has_loss, run in groupby(loss):
        end += len(list(run))
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        yield Part(text=text[len(before) :], loss=has_loss)
        before = text
