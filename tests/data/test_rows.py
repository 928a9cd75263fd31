import bz2
import gzip
import json
import lzma
import re
import zipfile
import zlib

import datasets
import pytest

from lorasweep.data.rows import Part, open_rows, open_stream
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

ROWS = [{"prompt": f"p{i}", "response": f"r{i}"} for i in range(8)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "prompt,response\n" + "".join(f"{row['prompt']},{row['response']}\n" for row in ROWS)


def part_of(path, split="train", **fields):
    return Part(str(path), "path", split, **fields)


def read(path, split="train", **fields):
    rows = open_rows(part_of(path, split, **fields), DataSpec())
    return [((row.number, row.file), row.cells) for row in rows.read()]


def stream(path, split="train"):
    opened = open_stream(part_of(path, split), DataSpec(streaming=True))
    found = [opened.placed(row, "response") for row in opened.of_column("response")]
    return [((row.number, row.file), row.cells["response"]) for row in found]


def refusal(path, split="train", **fields):
    with pytest.raises(DataError) as caught:
        read(path, split, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.csv", CSV)])
def test_one_file_may_be_compressed(tmp_path, pack, name, content):
    endings = {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}
    path = tmp_path / (name + endings.get(pack, ""))
    path.write_bytes(pack(content.encode()))
    assert read(path) == [((i, ""), row) for i, row in enumerate(ROWS, 1)]
    assert stream(path) == [((i, ""), row["response"]) for i, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_is_read_whatever_its_name(tmp_path, pack):
    path = tmp_path / "a.jsonl"
    path.write_bytes(pack(LINES.encode()))
    assert [cells for _, cells in read(path)] == ROWS


def test_rows_of_a_folder_name_their_file_also_in_an_archive(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("c.jsonl", LINES)
    places = [
        (i, f"{tmp_path}/{name}") for name in ("a.jsonl", "b.zip/c.jsonl") for i in range(1, 9)
    ]
    assert [place for place, _ in read(tmp_path)] == places
    assert [place for place, _ in stream(tmp_path)] == places


def test_a_separator_goes_with_the_name_of_a_file(tmp_path):
    (tmp_path / "a.tsv").write_text(CSV.replace(",", "\t"))
    assert [cells for _, cells in read(tmp_path)] == ROWS


@pytest.fixture
def splits(tmp_path):
    (tmp_path / "train.jsonl").write_text(LINES)
    (tmp_path / "test.jsonl").write_text(re.sub(r"p(\d)", r"q\1", LINES))
    return tmp_path


@pytest.mark.parametrize(
    ("split", "prompts"),
    [
        ("test", "q0 q1 q2 q3 q4 q5 q6 q7"),
        ("train[:2]", "p0 p1"),
        ("train[75%:]", "p6 p7"),
        ("train[1:2]+test[-1:]", "p1 q7"),
    ],
)
def test_a_split_may_be_a_part_of_one_or_of_several(splits, split, prompts):
    assert [cells["prompt"] for _, cells in read(splits, split)] == prompts.split()
    assert len(read(splits, "train+test")) == len(read(splits, "all")) == 16
    assert len(stream(splits, "train+test")) == len(stream(splits, "all")) == 16


def test_a_split_that_is_not_there_is_answered_with_those_that_are(splits):
    for split in ("dev", "dev[:3]", "train+dev"):
        assert refusal(splits, split) == f"data.split: must be one of train, test, got {split!r}"
    words = refusal(splits, "dev", split_key="heldout_split")
    assert words.startswith("data.heldout_split: must be one of train, test")
    assert "must be left out where the data are one file" in refusal(
        splits / "train.jsonl", "test", split_key="heldout_split"
    )
    with pytest.raises(DataError, match=r"a stream takes whole splits, got 'train\[:2\]'"):
        stream(splits, "train[:2]")


def test_a_data_set_saved_without_splits_has_none(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert "must be left out where the data have no splits" in refusal(
        tmp_path / "saved", "test", split_key="heldout_split"
    )


def test_a_format_that_is_saved_with_the_data_changes_nothing(tmp_path):
    saved = datasets.Dataset.from_list([{"prompt": 1, "response": "a"}]).with_format(
        "numpy", columns=["response"]
    )
    saved.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == [((1, ""), {"prompt": 1, "response": "a"})]


def test_columns_are_those_of_all_rows_up_to_the_limit(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n{"c": 3}\n')
    assert open_rows(part_of(path), DataSpec()).columns == ["a", "b", "c"]
    assert open_rows(part_of(path, limit=2), DataSpec()).columns == ["a", "b"]
    assert open_stream(part_of(path), DataSpec(streaming=True)).columns == ["a", "b", "c"]


def test_what_a_card_asks_of_the_reader_is_followed_or_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.replace(",", ";").replace("r0", "é").encode("cp1252"))
    card = "---\nconfigs:\n- config_name: default\n  data_files: a.csv\n  {}\n---\n"
    (tmp_path / "README.md").write_text(card.format('sep: ";"\n  encoding: cp1252'))
    assert read(tmp_path)[0][1] == {"prompt": "p0", "response": "é"}
    (tmp_path / "README.md").write_text(card.format("skiprows: 3"))
    assert "must not set skiprows, got 3; save the rows as" in refusal(tmp_path)


def gz(content: bytes) -> bytes:
    return gzip.compress(content)


ACCENT = LINES.replace("r4", "café")
ACCENT_CSV = CSV.replace("r4", "café")
PARQUET = b"PAR1\x15\x04"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", ACCENT.encode("cp1252"), "row 5 of {!r} has the byte 0xe9, which is not UTF-8"),
        ("a.csv", ACCENT_CSV.encode("cp1252"), "(in cp1252 it reads 'café'); save it as UTF-8"),
        ("a.csv", ACCENT_CSV.encode("latin-1"), "row 5 of {!r} has the byte 0xe9"),
        ("a.csv.gz", gz(CSV.replace("r4", "é").encode("latin-1")), "row 5 of {!r} has the byte"),
        (
            "a.jsonl",
            LINES.encode("utf-16"),
            "from its first row on {!r} is written in UTF-16; save",
        ),
        ("a.jsonl", LINES.encode("utf-16-le"), "{!r} is written in UTF-16; save it as UTF-8"),
        ("a.csv", CSV.encode("utf-16-be"), "{!r} is written in UTF-16; save it as UTF-8"),
        ("a.csv.gz", gz(CSV.encode("utf-16")), "{!r} is written in UTF-16; save it as UTF-8"),
        ("a.csv", CSV.encode("utf-32"), "{!r} is written in UTF-32; save it as UTF-8"),
        ("a.csv", CSV.encode("utf-32-le"), "{!r} is written in UTF-32; save it as UTF-8"),
        ("a.csv", CSV.replace("r4", "汉字").encode("gb18030"), "row 5 of {!r} has the byte 0xba"),
        ("a.csv", PARQUET, "{!r} is a Parquet file; name it .parquet"),
        ("a.json", b"<!DOCTYPE html><html>", "{!r} is a web page; download the file itself"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        ("a.jsonl.gz", gz(LINES.encode() * 999)[:-9], "reading broke off (EOFError: Compressed"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_true_cause(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    sentence = refusal(path)
    assert sentence.startswith("data.path: every row must be readable, and ")
    assert words.format(str(path)) in sentence
    with pytest.raises(DataError) as caught:
        stream(path)
    assert str(caught.value) == sentence


def test_damage_inside_of_a_compressed_file_is_one_sentence(tmp_path):
    packer = zlib.compressobj(wbits=31)
    content = bytearray(packer.compress(LINES.encode() * 99) + packer.flush())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    assert "every row must be readable, and" in refusal(tmp_path / "a.jsonl.gz")
