import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.data.encoding import UnreadableRowError, text_lines
from lorasweep.data.json_rows import json_rows

# Any text but lone surrogates, which no encoding of Unicode holds.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
rows = st.dictionaries(texts, texts | st.none(), max_size=4)


def read(content: str | bytes):
    """Read the rows of a file with this content."""
    data = content.encode() if isinstance(content, str) else content
    with text_lines(io.BytesIO(data)) as lines:
        found = list(json_rows(lines))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [row for _, row in found]


def refusal(content: str | bytes) -> tuple[int, str]:
    with pytest.raises(UnreadableRowError) as caught:
        read(content)
    return caught.value.row, caught.value.reason


@given(st.lists(rows, max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n \n", " "]))
def test_rows_are_what_was_written_in_every_form(rows, escaped, between):
    dumped = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    pretty = [json.dumps(row, ensure_ascii=escaped, indent=2) for row in rows]
    for lines in (dumped, pretty):
        assert read(between.join(lines)) == rows
        assert read("\ufeff" + between.join(lines) + between) == rows
        assert read(f"[{between}{f',{between}'.join(lines)}{between}]\n") == rows


@pytest.mark.parametrize(
    "written",
    [
        "1",
        "0.5",
        "1.10",
        "1e3",
        "-0",
        "-0.0",
        "1E+2",
        "100000000000000000001",
        "0.1000000000000000055",
        "true",
        "false",
        "NaN",
        "-Infinity",
    ],
)
def test_a_cell_that_is_one_word_keeps_its_characters(written):
    assert read(f'{{"a": {written}, "b": null}}') == [{"a": written, "b": None}]


def test_a_number_may_be_longer_than_python_computes_with():
    assert read(f'{{"a": {"1" * 5000}}}') == [{"a": "1" * 5000}]


def test_numbers_inside_of_lists_and_objects_are_numbers():
    source = '{"a": {"x": [1, 1.10, 1e3, 100000000000000000001, true, null, "s", 0.5]}}'
    (row,) = read(source)
    numbers = row["a"]["x"]
    assert numbers == [1, 1.1, 1000.0, 100000000000000000001, True, None, "s", 0.5]
    assert str(numbers[3]) == "100000000000000000001"
    assert json.loads(json.dumps(row)) == json.loads(source)


def test_strings_are_rows_of_text():
    assert read('["a", "b\\n"]') == read('"a"\n"b\\n"') == [{"text": "a"}, {"text": "b\n"}]


def test_signs_that_some_take_for_line_ends_stand_in_strings():
    text = "a\u2028b\u2029c\x85d\x0be\x7ff"
    assert read(json.dumps({"text": text}, ensure_ascii=False)) == [{"text": text}]


GOOD = '{"a": "b"}\n'


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        (GOOD + '{"a": "b\n', 2, "is not valid JSON (Invalid control character at character 9)"),
        (GOOD + '{"a": "b', 2, "Unterminated string at character 7"),
        (GOOD + '{"a": "b"\n' + GOOD, 2, "Expecting ',' delimiter"),
        (GOOD + GOOD + '{"a": }\n', 3, "is not valid JSON (Expecting value at character 7)"),
        (GOOD + "half a line\n", 2, "is not valid JSON (Expecting value at character 1)"),
        (GOOD + '{"a": 1, "a": 2}', 2, "has the key 'a' twice"),
        (GOOD + '{"a": {"b": 1, "b": 1}}', 2, "has the key 'b' twice"),
        (GOOD + '{"a": "\\ud800"}', 2, "holds \\ud800, half of a character"),
        (GOOD + '{"a": ["\\uDFFF"]}', 2, "holds \\udfff, half of a character"),
        (GOOD + "[1]", 2, "must be an object such as {...}, got a list"),
        (GOOD + "12", 2, "got a number"),
        (GOOD + "null", 2, "got null"),
        ('[{"a": "b"}, 12]', 2, "got a number"),
        ('[{"a": "b"} {"a": "c"}]', 1, "is not followed by a comma"),
        ('[{"a": "b"}, ', 2, "is missing, because the list is not closed"),
        ('[{"a": "b"}]\n' + GOOD, 2, "comes after the end of the list"),
        ("[" * 100_000, 1, "is nested too deeply"),
        (f'{{"a": [{"1" * 5000}]}}', 1, "holds a number that is too long"),
        (GOOD.encode() + '{"a": "café"}'.encode("cp1252"), 2, "byte 0xe9, which is not UTF-8"),
        ('[{"a": "b"}, {"a": "café"}]'.encode("latin-1"), 2, "(in cp1252 it reads "),
        ('[{"a": "b"}, {"a": "汉字"}]'.encode("gb18030"), 2, "has the byte 0xba"),
        (GOOD.encode() + b"\xfftrailing", 2, "has the byte 0xff"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_by_its_number(content, row, reason):
    number, words = refusal(content)
    assert (number, reason in words) == (row, True), (number, words)


def test_half_of_a_pair_is_whole_with_the_other_half():
    assert read('{"a": "\\ud83d\\ude00"}') == [{"a": "\U0001f600"}]


def test_a_long_value_over_many_lines_is_not_decoded_once_for_each(monkeypatch):
    from lorasweep.data import json_rows as module

    decoded = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s, idx=0):
            decoded.append(len(s))
            return super().raw_decode(s, idx)

    monkeypatch.setattr(module, "_DECODER", Counting())
    content = json.dumps({"a": ["b"] * 5000}, indent=1)
    assert len(read(content + "\n" + content)) == 2
    assert len(decoded) < 40
