"""Read training data from the hub or local files as examples, and split off the held-out ones."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep import testbed
from lorasweep.data.columns import Kind, Reader, Row, choose_reader
from lorasweep.data.example import EMPTY_RESPONSE, Example, LeftOut
from lorasweep.errors import DataError, in_a_line
from lorasweep.spec.sweep import DataSpec

_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
# Name -> instructions, held-out instructions, documents.
_EMBEDDED = {
    "testbed": (testbed.DATA, testbed.HELDOUT, testbed.DOCUMENTS),
    "testbed-code": (testbed.CODE_DATA, testbed.CODE_HELDOUT, testbed.CODE_DOCUMENTS),
}
PARTS = 1024  # shards of a saved folder that is streamed


@dataclass(frozen=True)
class Source:
    """Examples as text, for training and held out.

    columns: names of the columns that were read.
    notes: sentences on what was left out or not rendered.
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
    for key, path in (("path", data_paths(spec)[0]), ("heldout", spec.heldout)):
        if path is None or Path(path).expanduser().exists():
            continue
        if path.startswith((".", "/", "~")) or Path(path).suffix in _READERS:
            raise DataError(
                f"data.{key}: {path!r} cannot be read as a local file, a folder or a hub name: "
                "there is no such file; give the path of one"
            )


def data_paths(spec: DataSpec) -> tuple[str, str | None]:
    """Resolve the paths of a sweep's data and held-out data; embedded sets are in the package.

    Embedded documents have no held-out file; part of the documents is held out.
    """
    if spec.path not in _EMBEDDED:
        return spec.path, spec.heldout
    data, heldout, documents = _EMBEDDED[spec.path]
    if spec.kind == "documents":
        return str(documents), spec.heldout
    return str(data), str(heldout) if spec.heldout is None else spec.heldout


def open_dataset(path: str, spec: DataSpec) -> Any:
    """Open a data set with `datasets`; an iterable one if the sweep streams its data.

    Raises:
        DataError: the path cannot be read, or lacks the split.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # its warnings come back as errors
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # local reads are not reported to the hub
    local = Path(path).expanduser()
    try:
        if local.is_file():
            if local.suffix not in _READERS:
                raise DataError(
                    f"data.path: a file must end in {', '.join(_READERS)}, got {path!r}"
                )
            if local.stat().st_size == 0:
                raise DataError(f"data.path: {path} is empty; give a file with examples")
            reader = _READERS[local.suffix]
            escaped = glob.escape(str(local))  # datasets reads file names as patterns
            return datasets.load_dataset(
                reader, data_files=escaped, split="train", streaming=spec.streaming
            )
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(local))
            if isinstance(loaded, datasets.DatasetDict):
                if spec.split not in loaded:
                    raise DataError(
                        f"data.split: must be one of {', '.join(loaded)}, got {spec.split!r}"
                    )
                loaded = loaded[spec.split]
            if spec.streaming:  # rows stay on disk, and shards are shuffled like files
                return loaded.to_iterable_dataset(num_shards=min(PARTS, max(1, len(loaded))))
            return loaded
        where = str(local) if local.exists() else path
        return datasets.load_dataset(
            where,
            spec.subset,
            data_dir=spec.data_dir,
            split=spec.split,
            streaming=spec.streaming,
        )
    except DataError:
        raise
    except Exception as error:  # datasets raises nearly every kind of error
        # "An error occurred while generating the dataset" wraps the error that says what and where.
        said = (error.__cause__ if isinstance(error, DatasetGenerationError) else None) or error
        reason = in_a_line(said) or "there is no row in it"
        raise DataError(
            f"data.path: {path!r} cannot be read as a local file, a folder or a hub name "
            f"({type(said).__name__}: {reason})"
        ) from error


def _examples(rows: Iterable[Row], reader: Reader) -> tuple[list[Example], list[LeftOut]]:
    """Read rows as examples, apart from those that are left out."""
    examples: list[Example] = []
    left_out: list[LeftOut] = []
    for number, row in enumerate(rows, 1):
        read = reader.read(row, number)
        if isinstance(read, LeftOut):
            left_out.append(read)
        elif not read.response.strip():
            left_out.append(LeftOut(EMPTY_RESPONSE, number))
        else:
            examples.append(read)
    return examples, left_out


def read_source(spec: DataSpec, tokenizer: Any) -> Source:
    """Read a sweep's data as text and split off the held-out examples.

    Without `data.heldout`, a tenth of the examples, `data.heldout_examples` at most, is drawn with
    a fixed seed, so that every trial of every seed is measured on the same examples.

    Raises:
        DataError: nothing can be read, a column is missing, or no example is left.
    """
    path, heldout = data_paths(spec)
    dataset = open_dataset(path, spec)
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, len(dataset))))
    reader = choose_reader(spec, list(dataset.column_names), tokenizer)
    train, left_out = _examples(dataset, reader)
    notes = (*_left_out(left_out, len(dataset)), *reader.notes())
    if heldout is not None:
        apart = open_dataset(heldout, spec)
        examples, _ = _examples(apart, choose_reader(spec, list(apart.column_names), tokenizer))
        examples = examples[: spec.heldout_examples]
        return check_not_empty(Source(reader.kind, train, examples, reader.columns, notes), spec)
    import numpy as np

    count = min(spec.heldout_examples, max(1, len(train) // 10))
    order = np.random.default_rng(0).permutation(len(train))
    chosen = set(order[:count].tolist())
    return check_not_empty(
        Source(
            reader.kind,
            [example for i, example in enumerate(train) if i not in chosen],
            [example for i, example in enumerate(train) if i in chosen],
            reader.columns,
            notes,
        ),
        spec,
    )


def _left_out(rows: list[LeftOut], count: int) -> Iterator[str]:
    """Count the rows that were left out, by reason."""
    for reason in dict.fromkeys(row.reason for row in rows):
        of_reason = [row.row for row in rows if row.reason == reason]
        yield f"{len(of_reason):,} of {count:,} rows were left out, because {reason}"


def check_not_empty(source: Source, spec: DataSpec) -> Source:
    """Check that there are training and held-out examples.

    Raises:
        DataError: one part is empty.
    """
    for name, examples in (("training", source.train), ("held-out", source.heldout)):
        if not examples:
            raise DataError(
                f"data: must hold at least one {name} example with a response in it, got none in "
                f"{spec.path!r} (read as {source.kind} from {source.columns})"
            )
    return source
