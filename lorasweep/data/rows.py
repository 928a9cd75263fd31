"""Open a part of the data: its rows in memory, or a stream of them that `datasets` shuffles."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lorasweep.data.cells import refuse_types
from lorasweep.data.encoding import PARQUET, recognise
from lorasweep.data.written import PlacedRow, WrittenFiles, columns_of, placed
from lorasweep.errors import DataError, in_a_line
from lorasweep.spec.sweep import DataSpec

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
PARTS = 1024  # shards of a saved folder that is streamed
# What a data set's card may set for JSON and CSV; other options would change what a row is.
_READ_OPTIONS = {"sep", "delimiter", "encoding", "features", "chunksize", "block_size"}


@dataclass(frozen=True)
class Part:
    """A part of a sweep's data: for training, or held out.

    path: a file, a folder or a hub name.
    key: of the sweep's data section that names it.
    split, split_key: which of its splits, and where the sweep names that.
    limit: rows that are read at most; None for all.
    """

    path: str
    key: str
    split: str
    split_key: str = "split"
    limit: int | None = None


@dataclass(frozen=True)
class Rows:
    """Rows that can be read again and again.

    columns: of all of them.
    """

    columns: list[str]
    read: Callable[[], Iterator[PlacedRow]]


@dataclass(frozen=True)
class Stream:
    """A stream of rows.

    columns: None where only the first of the rows will tell.
    rows: with all columns.
    of_column: makes an iterable data set of `datasets` that has one column of text.
    placed: makes one of its rows a `PlacedRow`.
    """

    columns: list[str] | None
    rows: Any
    of_column: Callable[[str], Any]
    placed: Callable[[Mapping[str, Any], str], PlacedRow]


def suffix_of(path: Path) -> str:
    """Find the suffix that names a file's format, before that of a compression."""
    return Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def open_rows(part: Part, spec: DataSpec) -> Rows:
    """Open a part of the data for reading into memory.

    Raises:
        DataError: the path cannot be read, or lacks the split.
    """
    with _one_sentence(part):
        opened = _open(part, spec)
        if isinstance(opened, _Written):
            return _written_rows(opened.ranges(part.split), part.limit)
        rows = opened if part.limit is None else opened.take(min(part.limit, len(opened)))
        return Rows(list(rows.column_names), partial(_numbered, rows))


def open_stream(part: Part, spec: DataSpec) -> Stream:
    """Open a part of the data as a stream; it is not limited yet.

    Raises:
        DataError: the path cannot be read, or lacks the split.
    """
    with _one_sentence(part):
        opened = _open(part, spec)
        if isinstance(opened, _Written):
            files = opened.together(part.split)
            return Stream(files.first_columns(), files.rows(), files.stream, placed)

    def of_column(column: str) -> Any:
        refuse_types(opened.features, column)
        return opened.select_columns([column])

    return Stream(opened.column_names, opened, of_column, lambda row, _: PlacedRow(row, 0))


def _numbered(rows: Iterable[dict[str, Any]]) -> Generator[PlacedRow]:
    for number, cells in enumerate(rows, 1):
        # Arrow's records have every field of every row; those of other rows come as nulls, which a
        # chat template would write into the text.
        yield PlacedRow({name: _without_nulls(cell) for name, cell in cells.items()}, number)


def _without_nulls(cell: Any) -> Any:
    """Remove the fields of records that have no value; an element of a list stays."""
    if isinstance(cell, dict):
        return {name: _without_nulls(own) for name, own in cell.items() if own is not None}
    return [_without_nulls(own) for own in cell] if isinstance(cell, list) else cell


@dataclass(frozen=True)
class _Written:
    """JSON or CSV files, by split."""

    splits: dict[str, WrittenFiles]

    def ranges(self, split: str) -> list[tuple[WrittenFiles, int, int | None]]:
        """Resolve a split, or an expression such as `train[:10%]+test`, to ranges of rows."""
        import datasets

        if split in self.splits:
            return [(self.splits[split], 0, None)]
        wanted = "+".join(self.splits) if split == "all" else split
        sizes = {
            name: sum(1 for _ in files.rows()) if name in wanted else 0
            for name, files in self.splits.items()
        }
        absolute = datasets.ReadInstruction.from_spec(wanted).to_absolute(sizes)
        return [(self.splits[each.splitname], each.from_ or 0, each.to) for each in absolute]

    def together(self, split: str) -> WrittenFiles:
        """Join the files of a split, or of several such as `train+test`, to stream them."""
        names = list(self.splits) if split == "all" else [name.strip() for name in split.split("+")]
        if any(name not in self.splits for name in names):
            raise ValueError(f"a stream takes whole splits, got {split!r}")
        first, *others = (self.splits[name] for name in names)
        shards = (*first.shards, *chain.from_iterable(files.shards for files in others))
        return WrittenFiles(
            first.key, shards, first.separator, first.encoding, first.download, first.named
        )


def _written_rows(ranges: list[tuple[WrittenFiles, int, int | None]], limit: int | None) -> Rows:
    def read() -> Iterator[PlacedRow]:
        rows = chain.from_iterable(islice(files.rows(), low, high) for files, low, high in ranges)
        return islice(rows, limit)

    if all(files.separator for files, _, _ in ranges):  # a row of CSV has every column of its file
        first = chain.from_iterable(files.rows(of_each=1) for files, _, _ in ranges)
        return Rows(columns_of(first), read)
    return Rows(columns_of(read()), read)


def _open(part: Part, spec: DataSpec) -> Any:
    """Open files as they are written, or else a data set of `datasets`, streamed if asked for."""
    import datasets

    local = Path(part.path).expanduser()
    if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
        return _open_saved(local, part, spec)
    if local.is_file():
        if part.split_key != "split":
            raise DataError(
                f"data.{part.split_key}: must be left out where the data are one file, which has "
                f"no splits, got {part.split!r} for {part.path!r}; give data.heldout"
            )
        builder, split = _file_builder(local, part), "train"
    else:
        where = str(local) if local.exists() else part.path
        builder = datasets.load_dataset_builder(where, spec.subset, data_dir=spec.data_dir)
        split = part.split
        _check_split(
            part, [str(name) for name in getattr(builder.config, "data_files", None) or ()]
        )
    if written := _written(builder, part, spec, named=not local.is_file()):
        return written
    if spec.streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _file_builder(local: Path, part: Part) -> Any:
    import datasets

    suffix = suffix_of(local)
    if suffix not in READERS:
        raise DataError(
            f"data.{part.key}: a file must end in {', '.join(READERS)}, got {part.path!r}"
        )
    if local.stat().st_size == 0:
        raise DataError(f"data.{part.key}: {part.path} is empty; give a file with examples")
    if local.suffix == ".zst" and find_spec("zstandard") is None:
        raise DataError(
            f"data.{part.key}: a file packed as .zst needs the package zstandard, got "
            f"{part.path!r}; install it, or unpack the file"
        )
    with local.open("rb") as file:
        other = recognise(file.read(64))
    if suffix == ".parquet" and other and other[0] != PARQUET:
        raise DataError(
            f"data.{part.key}: {part.path!r} must be {PARQUET}, and is {other[0]}; {other[1]}"
        )
    escaped = glob.escape(str(local))  # datasets reads file names as patterns
    return datasets.load_dataset_builder(READERS[suffix], data_files=escaped)


def _open_saved(local: Path, part: Part, spec: DataSpec) -> Any:
    import datasets

    loaded = datasets.load_from_disk(str(local))
    if isinstance(loaded, datasets.DatasetDict):
        _check_split(part, list(loaded))
        loaded = loaded[part.split]
    elif part.split_key != "split":
        _check_split(part, [])
    loaded = loaded.with_format(None)  # saved with the data, it may turn text into arrays
    if spec.streaming:  # rows stay on disk, and shards are shuffled like files
        return loaded.to_iterable_dataset(num_shards=min(PARTS, max(1, len(loaded))))
    return loaded


def _check_split(part: Part, names: list[str]) -> None:
    """Check that each split of an expression such as `train[:10%]+test` is there."""
    asked = [re.split(r"[\[(]", term)[0].strip() for term in part.split.split("+")]
    if names and all(name in names or name == "all" for name in asked):
        return
    if names:
        raise DataError(
            f"data.{part.split_key}: must be one of {', '.join(names)}, got {part.split!r}"
        )
    if part.split_key != "split":
        raise DataError(
            f"data.{part.split_key}: must be left out where the data have no splits, got "
            f"{part.split!r} for {part.path!r}; give data.heldout"
        )


def _written(builder: Any, part: Part, spec: DataSpec, *, named: bool) -> _Written | None:
    """Find the files of JSON and CSV; None for what `datasets` has to read."""
    import datasets
    from datasets.download.streaming_download_manager import StreamingDownloadManager
    from datasets.packaged_modules.csv.csv import Csv
    from datasets.packaged_modules.json.json import Json

    if not isinstance(builder, Csv | Json):
        return None
    config = builder.config
    _check_options(config, part)
    download = datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options)
    data_files = config.data_files
    if not spec.streaming:
        manager = datasets.DownloadManager(
            download_config=download.copy(), base_path=builder.base_path
        )
        data_files = manager.download(data_files)
    opener = StreamingDownloadManager(download_config=download, base_path=builder.base_path)
    extracted = opener.extract(opener.download(data_files))
    return _Written(
        {
            str(split) if named else part.split: WrittenFiles(  # a file is its only split
                key=part.key,
                shards=tuple(opener.iter_files(file) for file in files),
                separator=config.sep if isinstance(builder, Csv) else "",
                encoding=config.encoding or "utf-8",
                download=download,
                named=named,
            )
            for split, files in extracted.items()
        }
    )


def _check_options(config: Any, part: Part) -> None:
    """Refuse what a data set's card asks of the reader that would change what a row is."""
    plain = type(config)()
    for name in vars(plain):
        about_files = {"name", "version", "data_dir", "data_files", "description"}
        if name in about_files | _READ_OPTIONS or getattr(config, name) == getattr(plain, name):
            continue
        raise DataError(
            f"data.{part.key}: the card of {part.path!r} must not set {name}, got "
            f"{getattr(config, name)!r}; save the rows as Parquet or JSONL"
        )


@contextmanager
def _one_sentence(part: Part) -> Iterator[None]:
    """Turn any error of `datasets` into a sentence."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # its warnings come back as errors
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # local reads are not reported to the hub
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # datasets raises nearly every kind of error
        # "An error occurred while generating the dataset" wraps the error that says what and where.
        said = (error.__cause__ if isinstance(error, DatasetGenerationError) else None) or error
        reason = in_a_line(said) or "there is no row in it"
        raise DataError(
            f"data.{part.key}: {part.path!r} cannot be read as a local file, a folder or a hub "
            f"name ({type(said).__name__}: {reason})"
        ) from error
