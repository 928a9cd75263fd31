"""Is the text that a file holds the text that is trained? Generated rows through every reader.

Rows of any characters (Unicode, line ends, quotes, control characters, and words that look like
dates, numbers, truth values and missing ones) are written by json, csv, pyarrow and `datasets`,
and read back from each form of a data set, into memory and as a stream.

    python benchmarks/text.py --out benchmarks/results/text.json
    python benchmarks/text.py --out /tmp/try.json --rows 500 --forms jsonl csv
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import random
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.sources import read_source
from lorasweep.data.stream import split_documents
from lorasweep.spec.sweep import DataSpec
from lorasweep.store.environment import environment
from lorasweep.store.paths import write_atomically

Rows = list[dict[str, str]]
NUMBERS = (
    "1",
    "0.5",
    "1.10",
    "-0",
    "1e3",
    "1E-7",
    "100000000000000000001",
    "0.1000000000000000055",
)
DATES = ("2024-05-01", "1999-12-31", "2024-05-03T10:00:01Z")
WORDS = (
    *NUMBERS,
    *("NA", "N/A", "None", "null", "nan", "NaN", "-Infinity", "#N/A", "<NA>", "NULL", ""),
    *("true", "false", "True", "FALSE", "yes", "no", "t", "f"),
    *("2024-05-01", "2024-05-01T10:00:00Z", "10:00", "01/05/2024", "1714557600", "P1D"),
    *("02134", "00501", "1,234", "1_000", "0x1F", "+1", ".5", "5.", "½", "٣", "1 000"),
    *(" a", "a ", "\ta", "a\n", "\r\n", "\r", "\n\n", " ", "\u00a0", "\ufeff", "\x00", "\x1a"),
    *('"', '""', "'", "\\", "\\n", "\\u0041", ",", ";", "{", "[", "{}", "#", "a,b", '"a"', "=1+1"),
    *(
        "\u2028",
        "\u2029",
        "\x85",
        "\x1c",
        "e\u0301",
        "é",
        "汉字",
        "🙂",
        "👨‍👩‍👧",
        "\U0010ffff",
        "\ufffd",
    ),
)


def any_character(rng: random.Random) -> str:
    """Draw one of all characters but the halves of surrogate pairs, the rare ones as often."""
    limit = rng.choice((0x20, 0x80, 0x100, 0x800, 0x10000, 0x110000))
    while 0xD800 <= (code := rng.randrange(limit)) <= 0xDFFF:
        pass
    return chr(code)


def any_text(rng: random.Random) -> str:
    """Draw a text of trap words and any characters."""
    if rng.random() < 0.3:
        return rng.choice(WORDS)
    kinds = rng.choices((True, False), k=rng.randrange(9))
    separator = rng.choice(("", " ", ",", "\n"))
    text = separator.join(rng.choice(WORDS) if word else any_character(rng) for word in kinds)
    return text * rng.choice((1, 1, 1, 1, 1, 1, 1, 50))


def generate(count: int, seed: int) -> Rows:
    """Draw rows; two columns hold nothing but numbers and dates, as files of answers do."""
    rng = random.Random(seed)
    return [
        {
            "prompt": any_text(rng),
            "response": any_text(rng),
            "date": rng.choice(DATES),
            "number": rng.choice(NUMBERS),
        }
        for _ in range(count)
    ]


def json_line(row: dict[str, str], *, pretty: bool = False) -> str:
    """Write a row, its number without quotes; if pretty, over several lines and in ASCII."""
    texts = {name: row[name] for name in ("prompt", "response", "date")}
    between = (",\n  ", " : ") if pretty else (", ", ": ")
    written = json.dumps(texts, ensure_ascii=pretty, separators=between)
    return f'{written[:-1]}, "number": {row["number"]}}}'


def jsonl(rows: Rows) -> bytes:
    return "".join(json_line(row) + "\n" for row in rows).encode()


def csv_of(rows: Rows, *, quoting: Literal[0, 1] = csv.QUOTE_MINIMAL, end: str = "\r\n") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting, lineterminator=end)
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return file.getvalue().encode()


def json_list(rows: Rows) -> bytes:
    return f"[{', '.join(json_line(row) for row in rows)}]".encode()


def json_pretty(rows: Rows) -> bytes:
    return "\r\n\r\n".join(json_line(row, pretty=True) for row in rows).encode()


def table(rows: Rows, kind: pa.DataType) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table(
        {name: pa.array(texts, pa.string()).cast(kind) for name, texts in columns.items()}
    )


def parquet(rows: Rows, kind: pa.DataType) -> bytes:
    file = io.BytesIO()
    pq.write_table(table(rows, kind), file, row_group_size=1000)
    return file.getvalue()


def zipped(rows: Rows) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jsonl", jsonl(rows))
    return file.getvalue()


def save(name: str, rows: Rows, root: Path) -> Path:
    """Save a data set with `datasets`, alone or as one of two splits."""
    saved = datasets.Dataset(table(rows, pa.string()))
    whole = saved if name == "saved" else datasets.DatasetDict(train=saved, test=saved.select([0]))
    whole.save_to_disk(root / name)
    return root / name


FILES: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": jsonl,
    "json": json_list,
    "pretty.json": json_pretty,
    "csv": csv_of,
    "quoted.csv": lambda rows: csv_of(rows, quoting=csv.QUOTE_ALL, end="\n"),
    "jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "csv.gz": lambda rows: gzip.compress(csv_of(rows)),
    "json.bz2": lambda rows: bz2.compress(json_list(rows)),
    "parquet": lambda rows: parquet(rows, pa.string()),
    "large.parquet": lambda rows: parquet(rows, pa.large_string()),
    "dictionary.parquet": lambda rows: parquet(rows, pa.dictionary(pa.int32(), pa.string())),
}
FOLDERS: dict[str, Callable[[Rows], bytes]] = {
    "folder of jsonl": jsonl,
    "folder of csv.gz": FILES["csv.gz"],
    "folder of parquet": FILES["parquet"],
    "folder of zip": zipped,
}
FORMS = (*FILES, *FOLDERS, "saved", "saved splits")


def write(form: str, rows: Rows, root: Path) -> Path:
    """Write rows in one form; a folder has them in three files."""
    if form in FILES:
        path = root / f"data.{form}"
        path.write_bytes(FILES[form](rows))
        return path
    if form.startswith("saved"):
        return save(form, rows, root)
    folder = root / form
    folder.mkdir()
    third = -(-len(rows) // 3)
    for part in range(3):
        content = FOLDERS[form](rows[part * third : (part + 1) * third])
        (folder / f"{part}.{form.removeprefix('folder of ')}").write_bytes(content)
    return folder


def in_memory(path: Path, rows: Rows, response: str) -> Iterator[tuple[str, str]]:
    """Pair what was written with what is trained; rows without a response are left out."""
    spec = DataSpec(path=str(path), prompt="prompt", response=response, heldout_examples=10**9)
    source = read_source(spec, None)
    found = sorted((e.prompt, e.response) for e in (*source.train, *source.heldout))
    wanted = sorted((row["prompt"], row[response]) for row in rows if row[response].strip())
    if len(found) != len(wanted):
        raise ValueError(f"{path}: {len(found)} examples of {len(wanted)} rows")
    yield from zip(map("|".join, wanted), map("|".join, found), strict=True)


def streamed(path: Path, rows: Rows, response: str) -> Iterator[tuple[str, str]]:
    """Pair what was written with what is trained; a stream shuffles, so texts are counted."""
    spec = DataSpec(path=str(path), text=response, kind="documents", streaming=True)
    with closing(split_documents(spec, None, LeftOutRows())) as documents:
        found = Counter(document.text for _, document in documents)
    wanted = Counter(row[response] for row in rows if row[response].strip())
    yield from zip((wanted - found).elements(), (found - wanted).elements(), strict=True)


def count_changed(form: str, rows: Rows) -> dict[str, int]:
    """Count the texts that are not trained as they were written, by reader."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        datasets.config.HF_DATASETS_CACHE = root / "cache"
        path = write(form, rows, root)
        return {
            f"{reader.__name__} {column}": sum(
                old != new for old, new in reader(path, rows, column)
            )
            for reader in (in_memory, streamed)
            for column in ("response", "date", "number")
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    rows = generate(options.rows, options.seed)
    found: dict[str, dict[str, float]] = {}
    for form in options.forms:
        started = time.monotonic()
        found[form] = {**count_changed(form, rows), "seconds": round(time.monotonic() - started, 1)}
        print(form, found[form], flush=True)
    content = {"rows": options.rows, "seed": options.seed, "changed": found, **environment()}
    write_atomically(options.out, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
