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
from lorasweep.data.sources import Source, check_not_empty, data_paths, open_dataset
from lorasweep.errors import DataError, in_a_line
from lorasweep.spec.sweep import DataSpec

SEED = 0  # trials of every seed see the same documents in the same order
BUFFER = 10_000  # documents in the shuffle buffer; files are shuffled as well
EVERY = 10  # one document in this many is held out
SAMPLE = 1000  # documents on which a plan is based


def split_documents(spec: DataSpec, tokenizer: Any) -> Generator[tuple[bool, str]]:
    """Stream documents, each with whether it is held out.

    Held out are those of `data.heldout`, which come first, or else the first of every ten, until
    there are `data.heldout_examples`.

    Raises:
        DataError: the source cannot be read, or not to its end, or holds no documents.
    """
    path, apart = data_paths(spec)
    lacking = spec.heldout_examples
    if apart is not None:
        with closing(_documents(apart, spec, tokenizer, shuffled=False)) as documents:
            for text in islice(documents, lacking):
                yield True, text
        lacking = 0
    with closing(_documents(path, spec, tokenizer, shuffled=True)) as documents:
        for index, text in enumerate(documents):
            held = lacking > 0 and index % EVERY == 0
            lacking -= held
            yield held, text


def sample_documents(spec: DataSpec, tokenizer: Any) -> Source:
    """Read the first documents of a stream, for planning a sweep.

    Raises:
        DataError: the source cannot be read or holds no documents.
    """
    train: list[Example] = []
    heldout: list[Example] = []
    with closing(split_documents(spec, tokenizer)) as documents:
        for held, text in documents:
            (heldout if held else train).append(Example.document(text))
            if len(train) == SAMPLE:
                break
    return check_not_empty(
        Source("documents", train, heldout, spec.text or "text or content"), spec
    )


def _documents(path: str, spec: DataSpec, tokenizer: Any, *, shuffled: bool) -> Generator[str]:
    """Stream the documents of one source, empty ones left out.

    Args:
        shuffled: whether this is the training data, which is shuffled and cut at `data.limit`.
    """
    opened = open_dataset(path, spec)
    reader = choose_reader(spec, opened.column_names or _columns(opened, path), tokenizer)
    opened = opened.select_columns([reader.columns])
    with closing(_rows(_shuffled(opened) if shuffled else opened, path)) as rows:
        for number, row in enumerate(islice(rows, spec.limit if shuffled else None), 1):
            read = reader.read(row, number)
            if not isinstance(read, LeftOut) and read.text.strip():
                yield read.text


def _shuffled(opened: Any) -> Generator[Row]:
    """Shuffle the order of the source's parts, and rows in a buffer filled from several parts."""
    if hasattr(opened, "reshard"):  # older versions of the library lack it
        # Parts become row groups of Parquet files instead of whole files: several are in memory.
        opened = opened.reshard()
    yield from opened.shuffle(seed=SEED, buffer_size=BUFFER)


def _columns(opened: Any, path: str) -> list[str]:
    """Read the columns of a source without a schema from its first row."""
    with closing(_rows(opened, path)) as rows:
        first = next(rows, None)
    if first is None:
        raise DataError(f"data.path: must hold at least one row, got none in {path!r}")
    return list(first)


def _rows(opened: Any, path: str) -> Generator[Row]:
    """Iterate over rows, turning any error of reading into one sentence."""
    rows, broken = iter(opened), ""
    try:
        for count in itertools.count():
            try:
                row = next(rows, None)
            except Exception as error:  # of any kind, as in `open_dataset`
                reason = f"{type(error).__name__}: {in_a_line(error, 200)}"
                broken = (
                    f"data.path: every row must be readable, and after {count:,} rows of {path!r} "
                    f"reading broke off{_file_of(error)} ({reason}); repair or remove that part"
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
