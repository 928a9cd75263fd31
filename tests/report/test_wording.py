import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lorasweep.report.wording import Markdown, duration, escape, number, table

MARKDOWN = MarkdownIt("commonmark").enable("table")
HOSTILE = ["a|b", "*x*", "_x_", "`x`", "<b>x</b>", "# x", "1. x", "- x", "---", "[x](y)", "a\nb"]


def text_of(markdown):
    """Give the text that a reader sees, paragraph by paragraph and cell by cell."""
    found = []
    for token in MARKDOWN.parse(markdown):
        if token.type == "inline":
            parts = [child.content for child in token.children or [] if child.type == "text"]
            found.append("".join(parts))
    return found


@pytest.mark.parametrize("text", [*HOSTILE, "weight_decay", "-0.5", "1e-05..0.1", "\\", "&amp;"])
def test_a_reader_sees_what_the_user_wrote(text):
    (token, *_) = MARKDOWN.parse(escape(text))
    assert token.type == "paragraph_open"
    assert text_of(escape(text)) == [" ".join(text.split())]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=20))
def test_any_text_is_shown_as_it_is(text):
    shown = " ".join(text.split())
    assert text_of(escape(text)) == ([shown] if shown else [])


@given(st.lists(st.lists(st.sampled_from([*HOSTILE, "1", ""]), min_size=2, max_size=2)))
def test_no_text_breaks_a_table(rows):
    found = text_of(table(["left", "right"], rows))
    cells = [" ".join(cell.split()) for row in rows for cell in row]
    assert found == ["left", "right", *cells]


def test_a_name_is_left_readable():
    assert escape("weight_decay") == "weight_decay"
    assert escape(Markdown("*x*")) == "*x*"


def test_columns_of_numbers_stand_to_the_right():
    assert table(["a", "b"], [["x", "1.5"]]).splitlines()[1] == "| --- | ---: |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.0001, "0.000"), (-0.5, "-0.500"), (12.3456, "12.35"), (None, "n/a")],
)
def test_scores_have_three_decimals(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(8, "8 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_are_in_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text
