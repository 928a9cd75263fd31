"""Stream documents one by one from a source of any size, shuffled by `datasets`."""

from __future__ import annotations

import gc
import itertools
import traceback
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import Any

from lorasweep.data.columns import Row, choose_reader
from lorasweep.data.example import Example, LeftOut
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.rows import Part, open_stream
from lorasweep.data.sources import Source, check_not_empty, data_parts, read_row
from lorasweep.errors import DataError, in_a_line
from lorasweep.spec.sweep import DataSpec

SEED = 0  # trials of every seed see the same documents in the same order
BUFFER = 10_000  # documents in the shuffle buffer; files are shuffled as well
EVERY = 10  # one document in this many is held out
SAMPLE = 1000  # documents on which a plan is based


def split_documents(
    spec: DataSpec, tokenizer: Any, left_out: LeftOutRows
) -> Generator[tuple[bool, Example]]:
    """Stream documents, each with whether it is held out.

    Held out are those of `data.heldout` or `data.heldout_split`, which come first, or else the
    first of every ten, until there are `data.heldout_examples`.

    Args:
        left_out: counts the rows without text.

    Raises:
        DataError: the source cannot be read, or not to its end, or holds no documents.
    """
    part, apart = data_parts(spec)
    lacking = spec.heldout_examples
    if apart is not None:
        with closing(_documents(apart, spec, tokenizer, left_out, shuffled=False)) as documents:
            for document in islice(documents, lacking):
                yield True, document
        lacking = 0
    with closing(_documents(part, spec, tokenizer, left_out, shuffled=True)) as documents:
        for index, document in enumerate(documents):
            held = lacking > 0 and index % EVERY == 0
            lacking -= held
            yield held, document


def sample_documents(spec: DataSpec, tokenizer: Any) -> Source:
    """Read the first documents of a stream, for planning a sweep.

    Raises:
        DataError: the source cannot be read or holds no documents.
    """
    train: list[Example] = []
    heldout: list[Example] = []
    left_out = LeftOutRows()
    with closing(split_documents(spec, tokenizer, left_out)) as documents:
        for held, document in documents:
            (heldout if held else train).append(document)
            if len(train) == SAMPLE:
                break
    columns = spec.text or "text or content"
    notes = left_out.notes(len(train) + len(heldout) + left_out.total)
    return check_not_empty(Source("documents", train, heldout, columns, tuple(notes)), spec)


def _documents(
    part: Part, spec: DataSpec, tokenizer: Any, left_out: LeftOutRows, *, shuffled: bool
) -> Generator[Example]:
    """Stream the documents of one source, empty ones left out.

    Args:
        shuffled: whether this is the training data, which is shuffled.
    """
    opened = open_stream(part, spec)
    columns = opened.columns or _columns(opened.rows, part)
    reader = choose_reader(spec, columns, tokenizer)
    rows = opened.of_column(reader.columns)
    with closing(_rows(_shuffled(rows) if shuffled else rows, part)) as found:
        for row in islice(found, part.limit):
            placed = opened.placed(row, reader.columns)
            document = read_row(placed, reader)
            if isinstance(document, LeftOut):
                left_out.add(document.reason, placed.number, placed.file)
            else:
                yield document


def _shuffled(opened: Any) -> Generator[Row]:
    """Shuffle the order of the source's parts, and rows in a buffer filled from several parts."""
    if hasattr(opened, "reshard"):  # older versions of the library lack it
        # Parts become row groups of Parquet files instead of whole files: several are in memory.
        opened = opened.reshard()
    yield from opened.shuffle(seed=SEED, buffer_size=BUFFER)


def _columns(opened: Any, part: Part) -> list[str]:
    """Read the columns of a source without a schema from its first row."""
    with closing(_rows(opened, part)) as rows:
        first = next(rows, None)
    if first is None:
        raise DataError(f"data.{part.key}: must hold at least one row, got none in {part.path!r}")
    return list(first)


def _rows(opened: Any, part: Part) -> Generator[Row]:
    """Iterate over rows, turning any error of reading into one sentence."""
    rows, broken = iter(opened), ""
    try:
        for count in itertools.count():
            try:
                row = next(rows, None)
            except DataError as error:
                broken = str(error)
            except Exception as error:  # of any kind, as in `open_stream`
                reason = f"{type(error).__name__}: {in_a_line(error, 200)}"
                broken = (
                    f"data.{part.key}: every row must be readable, and after {count:,} rows of "
                    f"{part.path!r} reading broke off{_file_of(error)} ({reason}); repair or "
                    "remove that part"
                )
            if broken:  # raised outside of `except`, to keep no reference to the failed reader
                raise DataError(broken)
            if row is None:
                return
            yield row
    finally:
        # A scanner of Arrow that is still alive when the interpreter ends aborts the process.
        del rows
        gc.collect()


def _file_of(error: Exception) -> str:
    """Name the file that could not be read, found in the frames of `datasets`' traceback."""
    names = [frame.f_locals.get("file") for frame, _ in traceback.walk_tb(error.__traceback__)]
    known = [name for name in names if isinstance(name, str)]
    return f" in {known[-1]!r}" if known else ""
