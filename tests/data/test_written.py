import csv
import gzip
import hashlib
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.text import FORMS, count_changed, generate, in_memory, write
from lorasweep.data import stream
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.sources import read_source
from lorasweep.data.stream import split_documents
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

IN_PARTS = [form for form in FORMS if "parquet" in form]  # a stream of one ends with a long wait


@pytest.mark.parametrize("form", [form for form in FORMS if form not in IN_PARTS])
def test_the_text_that_was_written_is_the_text_that_is_trained(form):
    assert set(count_changed(form, generate(100, seed=1)).values()) == {0}


@pytest.mark.parametrize("form", IN_PARTS)
def test_so_it_is_for_parquet_in_memory(form, tmp_path):
    rows = generate(100, seed=2)
    path = write(form, rows, tmp_path)
    for column in ("response", "date", "number"):
        assert all(old == new for old, new in in_memory(path, rows, column))


def responses(path, **fields):
    """Read the responses of a file in the order of its rows."""
    source = read_source(DataSpec(path=str(path), **fields), None)
    examples = sorted([*source.train, *source.heldout], key=lambda example: example.row)
    return [example.response for example in examples]


@pytest.mark.parametrize(
    "answers",
    [
        [f'"2024-05-0{day}"' for day in range(1, 9)],
        [f'"2024-05-03T10:00:0{second}Z"' for second in range(1, 9)],
        ["0.5", "1", "1.5", "2", "2.50", "3", "3.5", "4"],
        [f"10000000000000000000{n}" for n in range(1, 9)],
        ["true", "false", '"x"', "true"],
        ["1", '"one"', "true", "1.0", "1e3"],
    ],
)
def test_answers_in_json_are_trained_as_they_are_written(tmp_path, answers):
    path = tmp_path / "data.jsonl"
    lines = [f'{{"prompt": "p{i}", "response": {answer}}}\n' for i, answer in enumerate(answers)]
    path.write_text("".join(lines))
    assert responses(path) == [answer.strip('"') for answer in answers]


@pytest.mark.parametrize(
    "answers",
    [
        ["NA", "FR", "ES", "IT", "None", "null", "N/A", "DE", "nan", "TD"],
        ["02134", "00501", "01001", "10001", "02139", "90210"],
        ["1.10", "2.50", "3.00", "4.25", "10.00", "12.90"],
        ["true", "false", "True", "FALSE"],
    ],
)
def test_answers_in_csv_are_trained_as_they_are_written(tmp_path, answers):
    content = "prompt,response\n" + "".join(f"q{i},{a}\n" for i, a in enumerate(answers))
    (tmp_path / "data.csv").write_text(content)
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(content.encode()))
    assert responses(tmp_path / "data.csv") == answers
    assert responses(tmp_path / "data.csv.gz") == answers


def test_bytes_have_no_text(tmp_path):
    columns = {"prompt": ["q 0", "q 1"], "response": [b"bytes", b"bytes"]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    with pytest.raises(DataError) as caught:
        responses(tmp_path / "data.parquet")
    assert str(caught.value) == (
        "data: column 'response' must hold text, got bytes in row 1 (b'bytes'); cast the column to "
        "strings, written as they are to be trained"
    )


def test_a_column_that_begins_in_a_later_row_is_read(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"instruction": "a", "output": "b"}] * 3
    rows.append({"instruction": "a", "output": "b", "input": "c"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = read_source(DataSpec(path=str(path)), None)
    texts = {example.prompt for example in (*source.train, *source.heldout)}
    assert any("### Input:\nc" in text for text in texts)


def test_a_refused_row_of_a_folder_comes_with_its_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "p", "response": ["r"]}\n')
    with pytest.raises(DataError) as caught:
        responses(tmp_path)
    assert "got a list in row 1 (['r'])" in str(caught.value)
    assert str(caught.value).endswith(f"(the file is '{tmp_path / 'b.jsonl'}')")


def write_parts(folder, kind, parts, rows):
    """Write a folder of several files, the later ones longer."""
    for part in range(parts):
        cells = [{"text": f"document {part}.{i}", "n": i} for i in range(rows + part)]
        path = folder / f"{part}.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in cells))
        elif kind == "json":
            path.write_text(json.dumps(cells))
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["n", "text"])
                writer.writeheader()
                writer.writerows(cells)


# Made with `datasets`' own readers, before files were read as they are written. It shuffles rows
# whose types it knows in batches, and it knew those of JSON Lines.
ORDERS = {
    ("jsonl", 4, 25, 20): "c9b98a53a1c99fa6",
    ("jsonl", 12, 40, 30): "e771970b3283209e",
    ("jsonl", 3, 6000, 10_000): "e6240f10c0cbf5aa",
    ("json", 1, 100, 20): "e2413f01da4e94ac",
    ("json", 4, 25, 10_000): "2febd6387193c84f",
    ("csv", 12, 40, 30): "15a3c9b45a324508",
}


@pytest.mark.parametrize(
    ("shape", "order"), ORDERS.items(), ids=lambda value: "-".join(map(str, value))
)
def test_a_stream_keeps_the_order_in_which_earlier_sweeps_trained(
    tmp_path, monkeypatch, shape, order
):
    kind, parts, rows, buffer = shape
    write_parts(tmp_path, kind, parts, rows)
    monkeypatch.setattr(stream, "BUFFER", buffer)
    spec = DataSpec(path=str(tmp_path), streaming=True, heldout_examples=7)
    documents = split_documents(spec, None, LeftOutRows())
    text = "\n".join(f"{held:d} {document.text}" for held, document in documents)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == order


def test_nothing_is_copied_into_the_cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_parts(tmp_path, "jsonl", 2, 30)
    assert len(read_source(DataSpec(path=str(tmp_path)), None).train) > 0
    assert list(tmp_path.rglob("*.arrow")) == []
