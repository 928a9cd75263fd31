import itertools
import json

import datasets
import pytest

from lorasweep.data import stream
from lorasweep.data.left_out import LeftOutRows
from lorasweep.data.stream import sample_documents, split_documents
from lorasweep.errors import DataError
from lorasweep.spec.sweep import DataSpec

TEXTS = [f"document {i:03}" for i in range(100)]


@pytest.fixture
def folder(tmp_path):
    """A hundred documents in four files, one more column and an empty document in each."""
    for part in range(4):
        rows = [{"text": text, "url": text} for text in TEXTS[25 * part : 25 * part + 25]]
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"text": "", "url": ""}])
        (tmp_path / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def streamed(path, **fields) -> DataSpec:
    return DataSpec(path=str(path), streaming=True, **fields)


def documents_of(spec):
    """Stream documents as text, each with whether it is held out."""
    for held, document in split_documents(spec, None, LeftOutRows()):
        yield held, document.text


def parts(spec) -> tuple[list[str], list[str]]:
    """Collect training and held-out documents, each in the order of the stream."""
    found: tuple[list[str], list[str]] = ([], [])
    for held, text in documents_of(spec):
        found[held].append(text)
    return found


def refusal(spec) -> str:
    with pytest.raises(DataError) as caught:
        parts(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_document_comes_once_in_an_order_that_repeats(folder):
    train, heldout = parts(streamed(folder))
    assert sorted([*train, *heldout]) == TEXTS
    assert parts(streamed(folder)) == (train, heldout)
    assert train != sorted(train)


def test_the_first_documents_are_of_all_files(folder, monkeypatch):
    monkeypatch.setattr(stream, "BUFFER", 20)
    train, _ = parts(streamed(folder, limit=20))
    assert len({text[:10] + str(int(text[-3:]) // 25) for text in train}) > 2


def test_the_first_of_every_ten_is_held_out_until_there_are_enough(folder):
    order = [text for _, text in documents_of(streamed(folder))]
    _, heldout = parts(streamed(folder))
    assert heldout == order[::10]
    assert parts(streamed(folder, heldout_examples=3))[1] == order[:30:10]


def test_other_documents_may_be_held_out(folder, tmp_path_factory):
    apart = tmp_path_factory.mktemp("apart") / "apart.jsonl"
    apart.write_text("".join(json.dumps({"text": f"apart {i}"}) + "\n" for i in range(9)))
    train, heldout = parts(streamed(folder, heldout=str(apart), heldout_examples=5))
    assert heldout == [f"apart {i}" for i in range(5)]
    assert sorted(train) == TEXTS


def test_a_limit_counts_rows_of_the_shuffled_stream(folder):
    whole = [text for _, text in documents_of(streamed(folder))]
    some = [text for _, text in documents_of(streamed(folder, limit=40))]
    assert some == whole[: len(some)]
    assert 36 <= len(some) <= 40  # four rows of the files are empty


# `datasets` leaves a CSV file to the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "saved", "split"])
def test_all_that_can_be_read_can_be_streamed(tmp_path, kind):
    rows = datasets.Dataset.from_dict({"text": TEXTS, "more": TEXTS})
    path = tmp_path / f"data.{kind}"
    match kind:
        case "parquet":
            rows.to_parquet(path)
        case "csv":
            rows.to_csv(path)
        case "json":
            path.write_text(json.dumps([{"text": text} for text in TEXTS]))
        case "saved":
            rows.save_to_disk(path)
        case "split":
            datasets.DatasetDict({"train": rows}).save_to_disk(path)
    train, heldout = parts(streamed(path))
    assert sorted([*train, *heldout]) == TEXTS
    assert train != sorted(train)


def test_the_embedded_documents_can_be_streamed():
    train, heldout = parts(streamed("testbed", kind="documents", limit=50))
    assert (len(train), len(heldout)) == (45, 5)


def test_a_sample_stands_for_the_stream(folder, monkeypatch):
    monkeypatch.setattr(stream, "SAMPLE", 30)
    source = sample_documents(streamed(folder), None)
    assert (len(source.train), len(source.heldout), source.kind) == (30, 4, "documents")


def test_instructions_are_not_streamed(pairs_file):
    assert refusal(streamed(pairs_file)).startswith("data.streaming: must be false for instr")
    assert "the columns messages of" in _refusal_of_messages(pairs_file.parent)


def _refusal_of_messages(folder):
    path = folder / "messages.jsonl"
    path.write_text(json.dumps({"messages": []}) + "\n")
    try:
        return refusal(streamed(path))
    finally:
        path.unlink()


def test_a_column_that_is_missing_is_named(folder):
    assert refusal(streamed(folder, text="body")) == (
        "data.text: must be one of text, url, got 'body'"
    )


def test_a_stream_without_a_row_is_refused(tmp_path):
    path = tmp_path / "data.json"
    path.write_text("[]")
    assert "row" in refusal(streamed(path))


def test_a_file_that_breaks_off_is_named(folder, monkeypatch):
    monkeypatch.setattr(stream, "BUFFER", 1)
    (folder / "2.jsonl").write_text('{"text": "whole"}\n{"text": "ha')
    assert refusal(streamed(folder)).startswith(
        f"data.path: every row must be readable, and row 2 of {str(folder / '2.jsonl')!r} is not "
        "valid JSON (Unterminated string"
    )


def test_the_library_is_asked_no_further_than_needed(folder):
    documents = split_documents(streamed(folder), None, LeftOutRows())
    assert len(list(itertools.islice(documents, 3))) == 3
    documents.close()


def test_held_out_documents_may_come_from_a_split(tmp_path):
    for split in ("train", "test"):
        lines = "".join(json.dumps({"text": f"{split} {i}"}) + "\n" for i in range(9))
        (tmp_path / f"{split}.jsonl").write_text(lines)
    train, heldout = parts(streamed(tmp_path, heldout_split="test", heldout_examples=3))
    assert sorted(train) == [f"train {i}" for i in range(9)]
    assert heldout == [f"test {i}" for i in range(3)]


def test_documents_without_text_are_counted(folder):
    left_out = LeftOutRows()
    assert len(list(split_documents(streamed(folder), None, left_out))) == 100
    assert left_out.counts == {"their text is empty": 4}
    assert sorted(left_out.places["their text is empty"]) == [
        (26, f"{folder / str(part)}.jsonl") for part in range(4)
    ]


def test_a_column_of_another_type_is_refused_before_anything_is_read(tmp_path):
    datasets.Dataset.from_dict({"text": [0.5]}).to_parquet(tmp_path / "data.parquet")
    assert refusal(streamed(tmp_path / "data.parquet")).startswith(
        "data: column 'text' must hold text, got float64 from row 1 on; cast the column to strings"
    )
