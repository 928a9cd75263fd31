import csv
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lorasweep.data.cells import text_of
from lorasweep.data.csv_rows import csv_rows
from lorasweep.data.encoding import UnreadableRowError, text_lines
from lorasweep.errors import DataError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def read(content: str | bytes, separator: str = ","):
    data = content.encode() if isinstance(content, str) else content
    with text_lines(io.BytesIO(data), carriage_returns=True) as lines:
        found = list(csv_rows(lines, separator))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [row for _, row in found]


def refusal(content: str | bytes) -> tuple[int, str]:
    with pytest.raises(UnreadableRowError) as caught:
        read(content)
    return caught.value.row, caught.value.reason


@given(
    st.lists(st.tuples(texts, texts), max_size=6),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", "\t", ";"]),
)
def test_cells_are_what_was_written(pairs, quoting, end, separator):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting, lineterminator=end, delimiter=separator)
    writer.writerows([("prompt", "response"), *pairs])
    # What is not quoted makes with the line's end beside it another line's end.
    if quoting == csv.QUOTE_MINIMAL and end == "\n":
        assume(not any(response.endswith("\r") for _, response in pairs))
    if quoting == csv.QUOTE_MINIMAL and end == "\r":
        assume(not any(prompt.startswith("\n") for prompt, _ in pairs))
    rows = [{"prompt": prompt, "response": response} for prompt, response in pairs]
    assert read(file.getvalue(), separator) == read("\ufeff" + file.getvalue(), separator) == rows


WORDS = ["NA", "None", "null", "nan", "N/A", "02134", "1.10", "true", " a ", "1e3", "2024-05-01"]


@pytest.mark.parametrize("word", [*WORDS, "x" * 200_000])
def test_no_word_is_taken_for_anything_else(word):
    assert read(f"prompt,response\n{word},{word}\n") == [{"prompt": word, "response": word}]


def test_blank_lines_are_no_rows_and_columns_without_a_name_get_one():
    assert read(",a\n1,2\n\n  \n3,4") == [
        {"Unnamed: 0": "1", "a": "2"},
        {"Unnamed: 0": "3", "a": "4"},
    ]
    assert read("a,b\n1,2\n\x1a") == [{"a": "1", "b": "2"}]
    assert read("text\n a \n") == [{"text": " a "}]


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        ("a,b\n1,2\n3\n", 2, "has 1 cell where the header has 2 (line 3)"),
        ("a,b\n1,2,\n", 1, "has 3 cells where the header has 2 (line 2)"),
        ('a,b\n1,2\n"3,4\n', 2, "is not valid CSV (unexpected end of data, line 3)"),
        ('a,b\n1,"2"3\n', 1, "is not valid CSV"),
        ("a,b\n1,2\ncafé,3\n".encode("cp1252"), 2, "has the byte 0xe9, which is not UTF-8"),
        ("café,b\n1,2\n".encode("cp1252"), 0, "in cp1252 it reads 'café'"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_number(content, row, reason):
    number, words = refusal(content)
    assert (number, reason in words) == (row, True), (number, words)


def test_a_name_that_stands_twice_is_refused_where_it_is_trained_on():
    ((number, row),) = enumerate(read("a,b,a\n1,2,3\n"), 1)
    assert (row["b"], row["a.1"]) == ("2", "3")
    with pytest.raises(DataError, match="column 'a' must stand once in the header, and stands"):
        text_of(row["a"], "a", number)
