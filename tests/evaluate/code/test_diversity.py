from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.evaluate.code.diversity import average, collapse_whitespace, count, syntax_tree
from lorasweep.store.scores import Distinct

PROMPT = 'def double(n):\n    """Double n."""\n'


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("    return n + n\n", "    return n+n  # twice\n"),
        ("    return n + n\n", "    return (n + n)"),
        ("    return 'n'\n", '    return "n"\n'),
    ],
)
def test_comments_and_formatting_make_no_other_program(left: str, right: str):
    assert collapse_whitespace(left) != collapse_whitespace(right)
    assert syntax_tree(PROMPT, left) == syntax_tree(PROMPT, right)


@pytest.mark.parametrize("other", ["    return n * 2\n", "    m = n\n    return m + m\n"])
def test_names_and_deeds_do(other: str):
    assert syntax_tree(PROMPT, "    return n + n\n") != syntax_tree(PROMPT, other)


def test_a_completion_counts_alone_where_only_that_parses():
    assert syntax_tree("Write a program:\n", "x = 1  # one") == syntax_tree(
        "Write another:\n", "x=1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "    return (n +\n  n",
        "  for  ever",
        "    return '\0'",
        "    return " + "(" * 5000,
        "    return " + "-" * 20000 + "1",
    ],
)
def test_what_does_not_parse_counts_by_its_words(text: str):
    assert syntax_tree(PROMPT, text) == collapse_whitespace(text)


def test_odd_escapes_are_parsed_without_a_warning():
    assert syntax_tree(PROMPT, "    return '\\d'\n").startswith("Module(")


def test_blanks_make_no_other_text():
    assert collapse_whitespace("  a\n\n\tb ") == collapse_whitespace("a b")
    assert collapse_whitespace("ab") != collapse_whitespace("a b")


def test_completions_are_counted_by_outcome():
    forms = ["a", "a", "b", "c", "b"]
    counted = count(forms, [True, True, False, False, True])
    assert counted == Distinct(all=3, passed=2, failed=2)
    assert count(["a", "a"], [True, True]) == Distinct(all=1, passed=1, failed=None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1))
def test_each_outcome_has_at_most_as_many_as_all(completions: list[tuple[str, bool]]):
    forms, passed = zip(*completions, strict=True)
    counted = count(forms, passed)
    assert 1 <= counted.all <= len(forms)
    assert max(counted.passed or 0, counted.failed or 0) <= counted.all
    assert counted.all <= (counted.passed or 0) + (counted.failed or 0)


def test_problems_without_an_outcome_are_left_out_of_its_average():
    counts = [Distinct(all=4, passed=1, failed=3), Distinct(all=2, failed=2)]
    assert average(counts) == Distinct(all=3, passed=1, failed=2.5)
    assert average(counts[1:]) == Distinct(all=2, passed=None, failed=2)
