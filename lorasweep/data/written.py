"""JSON and CSV files of a data set, found by `datasets` and read exactly as they are written.

`datasets` would read them with pandas and pyarrow, which guess types: dates, numbers and missing
values would be trained as what Python prints of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from lzma import LZMAError
from typing import Any

from lorasweep.data.cells import text_of
from lorasweep.data.csv_rows import csv_rows
from lorasweep.data.encoding import UnreadableFileError, UnreadableRowError, text_lines
from lorasweep.data.json_rows import json_rows
from lorasweep.errors import DataError, in_a_line

FIRST_ROWS = 1000  # rows of a stream from which its columns are known
_BATCH = 1000  # rows of a table in a stream


@dataclass(frozen=True)
class PlacedRow:
    """A row and where it stands.

    cells: by column; each is a string, None, a list or a dictionary, or of a type of Arrow's.
    number: in its file, from 1; 0 where a stream does not know it.
    file: that holds it; empty where a data set is one file.
    """

    cells: Mapping[str, Any]
    number: int
    file: str = ""


@dataclass(frozen=True)
class WrittenFiles:
    """The JSON or CSV files of a split.

    key: of the sweep's data section that names them.
    shards: each one file, or the files of an archive, as `datasets` names them.
    separator: of CSV; empty for JSON.
    encoding: that the data set's card asks for; UTF-8 as a rule.
    download: `datasets`' configuration, with which remote files are opened.
    named: whether rows are given with their file, since the sweep names none.
    """

    key: str
    shards: tuple[Iterable[str], ...]
    separator: str
    encoding: str
    download: Any
    named: bool

    def rows(self, of_each: int | None = None) -> Generator[PlacedRow]:
        """Read rows, file after file.

        Args:
            of_each: the first ones of each file only.

        Raises:
            DataError: one of them cannot be read.
        """
        for shard in self.shards:
            for file in shard:
                with closing(self._rows_of(file)) as rows:
                    for number, cells in islice(rows, of_each):
                        yield PlacedRow(cells, number, _shown(file) if self.named else "")

    def _rows_of(self, file: str) -> Generator[tuple[int, dict[str, Any]]]:
        from datasets.utils.file_utils import xopen

        broken, number = "", 0
        try:
            opened = xopen(file, "rb", download_config=self.download)
            is_csv = bool(self.separator)
            with text_lines(opened, self.encoding, carriage_returns=is_csv) as lines:
                read = csv_rows(lines, self.separator) if is_csv else json_rows(lines)
                for number, cells in read:
                    yield number, cells
        except UnreadableFileError as error:
            broken = f"from its first row on {_shown(file)!r} {error.kind}; {error.fix}"
        except UnreadableRowError as error:
            place = f"row {error.row:,}" if error.row else "the header"
            broken = f"{place} of {_shown(file)!r} {error.reason}; {error.fix}"
        except (OSError, EOFError, zlib.error, LZMAError) as error:
            reason = f"{type(error).__name__}: {in_a_line(error, 200)}"
            broken = (
                f"after row {number:,} of {_shown(file)!r} reading broke off ({reason}); repair or "
                "remove that file"
            )
        if broken:
            raise DataError(f"data.{self.key}: every row must be readable, and {broken}")

    def first_columns(self) -> list[str]:
        """Collect the columns of the first rows, in the order in which they appear."""
        with closing(self.rows()) as rows:
            return columns_of(islice(rows, FIRST_ROWS))

    def stream(self, column: str) -> Any:
        """Make a stream of `datasets` from one column of text, that it shuffles as it does its own.

        Its rows hold `cell`, `number` and `file`; `placed` makes them `PlacedRow`.
        """
        import datasets
        from datasets.iterable_dataset import ArrowExamplesIterable

        source = ArrowExamplesIterable(
            _tables, {"shards": list(self.shards), "files": self, "column": column}
        )
        if self.separator or self._is_list:
            return datasets.IterableDataset(source)
        # `datasets` shuffles rows whose types it knows in batches, and it knew those of JSON Lines.
        kinds = {"cell": "large_string", "number": "int64", "file": "large_string"}
        features = datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()})
        return datasets.IterableDataset(source, info=datasets.DatasetInfo(features=features))

    @property
    def _is_list(self) -> bool:
        """Whether the first file is one list of objects, and not lines of them."""
        from datasets.utils.file_utils import xopen

        file = next((file for shard in self.shards for file in shard), None)
        if file is None:
            return False
        with xopen(file, "rb", download_config=self.download) as opened:
            return bool(re.match(rb"(?:\xef\xbb\xbf)?\s*\[", opened.read(4096)))


def placed(row: Mapping[str, Any], column: str) -> PlacedRow:
    """Take back a row of `WrittenFiles.stream`."""
    return PlacedRow({column: row["cell"]}, row["number"], row["file"])


def _tables(shards: list[Iterable[str]], files: WrittenFiles, column: str) -> Iterator[Any]:
    """Read files into tables, as `datasets` expects of a source."""
    import pyarrow as pa

    schema = pa.schema(
        [("cell", pa.large_string()), ("number", pa.int64()), ("file", pa.large_string())]
    )
    with closing(replace(files, shards=tuple(shards)).rows()) as rows:
        for key in range(2**63):
            batch = [
                (text_of(row.cells.get(column), column, row.number), row.number, row.file)
                for row in islice(rows, _BATCH)
            ]
            if not batch:
                return
            yield key, pa.table(list(zip(*batch, strict=True)), schema=schema)


def columns_of(rows: Iterable[PlacedRow]) -> list[str]:
    """Collect the columns of rows, since JSON may name one in any of them."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row.cells)
    return list(names)


def _shown(file: str) -> str:
    """Name a file as its user does; one inside of an archive goes with the archive's name."""
    inner, *outer = file.split("::")
    if not outer:
        return file
    protocol, _, name = inner.partition("://")
    return f"{outer[-1]}/{name}" if protocol == "zip" else outer[-1]
