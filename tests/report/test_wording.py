import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lorasweep.report.wording import (
    LONGEST,
    Markdown,
    compact,
    duration,
    escape,
    interval,
    number,
    sentence,
    shorten,
    signed,
    table,
)

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


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (-0.25, "-0.250"), (1e-5, "1e-05"), (7e-17, "0.000"), (1234.5678, "1235")],
)
def test_a_number_of_any_size_keeps_its_digits(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.4, 0.6, "0.400 to 0.600"),
        (None, 0.6, "below 0.600"),
        (0.4, None, "above 0.400"),
        (None, None, "n/a"),
    ],
)
def test_the_bounds_of_an_interval_may_be_open(low, high, text):
    assert interval(low, high) == text


def test_numbers_below_zero_have_a_minus_sign():
    assert signed("-0.25 to 1e-05") == "\N{MINUS SIGN}0.25 to 1e\N{MINUS SIGN}05"
    assert signed("top-5") == "top-5"


def test_clauses_become_sentences():
    assert sentence("its mean is higher") == "Its mean is higher."
    assert sentence("Two.") == "Two."
    assert sentence("") == ""


def test_long_names_are_cut():
    assert shorten("lr") == "lr"
    assert shorten(0.1) == 0.1
    assert len(str(shorten("x" * 10**6))) == LONGEST
