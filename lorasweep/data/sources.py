"""Read training data from the hub or local files as examples, and split off the held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorasweep import testbed
from lorasweep.data.columns import Kind, Reader, choose_reader
from lorasweep.data.example import EMPTY_RESPONSE, EMPTY_TEXT, Example, LeftOut
from lorasweep.data.left_out import LeftOutRows, listed
from lorasweep.data.rows import READERS, Part, open_rows, suffix_of
from lorasweep.data.written import PlacedRow
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

# Name -> instructions, held-out instructions, documents.
_EMBEDDED = {
    "testbed": (testbed.DATA, testbed.HELDOUT, testbed.DOCUMENTS),
    "testbed-code": (testbed.CODE_DATA, testbed.CODE_HELDOUT, testbed.CODE_DOCUMENTS),
}


@dataclass(frozen=True)
class Source:
    """Examples as text, for training and held out.

    columns: names of the columns that were read.
    notes: sentences on what was left out, not rendered, or is in both parts.
    """

    kind: Kind
    train: list[Example]
    heldout: list[Example]
    columns: str
    notes: tuple[str, ...] = ()


def check_local_files(spec: DataSpec) -> None:
    """Check that the local files named in a sweep exist; the hub is not asked.

    Raises:
        DataError: one of them does not.
    """
    for key, path in (("path", _paths(spec)[0]), ("heldout", spec.heldout)):
        if path is None or Path(path).expanduser().exists():
            continue
        if path.startswith((".", "/", "~")) or suffix_of(Path(path)) in READERS:
            raise DataError(
                f"data.{key}: {path!r} cannot be read as a local file, a folder or a hub name: "
                "there is no such file; give the path of one"
            )


def _paths(spec: DataSpec) -> tuple[str, str | None]:
    """Resolve the paths of a sweep's data and held-out data; embedded sets are in the package.

    Embedded documents have no held-out file; part of the documents is held out.
    """
    if spec.path not in _EMBEDDED:
        return spec.path, spec.heldout
    data, heldout, documents = _EMBEDDED[spec.path]
    if spec.kind == "documents":
        return str(documents), spec.heldout
    return str(data), str(heldout) if spec.heldout is None else spec.heldout


def data_parts(spec: DataSpec) -> tuple[Part, Part | None]:
    """Name the parts that are opened; the second is None if examples are held out of the first."""
    path, heldout = _paths(spec)
    train = Part(path, "path", spec.split, limit=spec.limit)
    if spec.heldout_split is not None:
        key = "path" if heldout is None else "heldout"
        return train, Part(heldout or path, key, spec.heldout_split, "heldout_split")
    return train, None if heldout is None else Part(heldout, "heldout", spec.split)


@dataclass(frozen=True)
class _Examples:
    """The examples of a part.

    left_out: rows that are none.
    rows: how many were read.
    """

    reader: Reader
    examples: list[Example]
    left_out: LeftOutRows
    rows: int


def _read(part: Part, spec: DataSpec, tokenizer: Any) -> _Examples:
    """Read the rows of a part as examples, apart from those that are left out."""
    opened = open_rows(part, spec)
    if not opened.columns:
        raise DataError(f"data.{part.key}: must hold at least one row, got none in {part.path!r}")
    reader = choose_reader(spec, opened.columns, tokenizer)
    read = _Examples(reader, [], LeftOutRows(), 0)
    count = 0
    for row in opened.read():
        count += 1
        example = read_row(row, reader)
        if isinstance(example, LeftOut):
            read.left_out.add(example.reason, row.number, row.file)
        else:
            read.examples.append(example)
    return replace(read, rows=count)


def read_row(row: PlacedRow, reader: Reader) -> Example | LeftOut:
    """Read a row, with its file in every sentence; one in which no text is learned is left out.

    Raises:
        DataError: the row cannot be read.
    """
    try:
        example = reader.read(row.cells, row.number)
    except DataError as error:
        if row.file:
            raise DataError(f"{error} (the file is {row.file!r})") from None
        raise
    if isinstance(example, LeftOut):
        return example
    if not example.response.strip():
        return LeftOut(EMPTY_TEXT if reader.kind == "documents" else EMPTY_RESPONSE, row.number)
    return replace(example, file=row.file) if row.file else example


def read_source(spec: DataSpec, tokenizer: Any) -> Source:
    """Read a sweep's data as text and split off the held-out examples.

    Without `data.heldout` and `data.heldout_split`, a tenth of the examples,
    `data.heldout_examples` at most, is drawn with a fixed seed, so that every trial of every seed
    is measured on the same examples.

    Raises:
        DataError: nothing can be read, a column is missing, or no example is left.
    """
    part, apart = data_parts(spec)
    read = _read(part, spec, tokenizer)
    train, notes = read.examples, [*read.left_out.notes(read.rows), *read.reader.notes()]
    if apart is not None:
        others = _read(apart, spec, tokenizer)
        heldout = others.examples[: spec.heldout_examples]
        notes += others.left_out.notes(others.rows, "held-out rows")
    else:
        import numpy as np

        count = min(spec.heldout_examples, max(1, len(train) // 10))
        order = np.random.default_rng(0).permutation(len(train))
        chosen = set(order[:count].tolist())
        heldout = [example for i, example in enumerate(train) if i in chosen]
        train = [example for i, example in enumerate(train) if i not in chosen]
    notes += overlap(train, heldout)
    source = Source(read.reader.kind, train, heldout, read.reader.columns, tuple(notes))
    return check_not_empty(source, spec)


def overlap(train: Sequence[Example], heldout: Sequence[Example]) -> list[str]:
    """Name the held-out examples that are trained on as well, letter for letter."""
    trained = set(train)
    both = [example for example in heldout if example in trained]
    if not both:
        return []
    places = [(example.row, example.file) for example in both[:3]]
    return [f"{in_both(len(both), len(heldout))}{listed(places, len(both))}"]


def in_both(count: int, heldout: int) -> str:
    """Phrase how many held-out examples are trained on."""
    return (
        f"{count:,} of {heldout:,} held-out examples {'is' if count == 1 else 'are'} in the "
        "training data as well, so the loss on them is that of trained text"
    )


def check_not_empty(source: Source, spec: DataSpec) -> Source:
    """Check that there are training and held-out examples.

    Raises:
        DataError: one part is empty.
    """
    parts = (("training", source.train, None), ("held-out", source.heldout, spec.heldout))
    for name, examples, path in parts:
        if not examples:
            read_as = "; ".join([f"read as {source.kind} from {source.columns}", *source.notes])
            raise DataError(
                f"data: must hold at least one {name} example with a response in it, got none in "
                f"{path or spec.path!r} ({read_as})"
            )
    return source
