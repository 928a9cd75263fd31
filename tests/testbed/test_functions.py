"""A solution does what its description asks, and its test tells it from wrong ones."""

import builtins
import itertools
import keyword
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lorasweep.testbed import families
from lorasweep.testbed.functions import Function, code_document, functions

# The shipped task and more of the stream that it begins.
SOME = list(itertools.islice(functions("target"), 1500))
STEPS = [
    step
    for table in (
        families.NUMBERS,
        families.NUMBERS_TWICE,
        families.LISTS,
        families.LIST_ENDS,
        families.TEXTS,
        families.TEXT_ENDS,
    )
    for step in table
]


def passes(function: Function, body: str) -> bool:
    space: dict[str, Any] = {}
    code = f"{function.prompt}{body}\n{function.test}\ncheck({function.entry_point})"
    try:
        exec(code, space)
    except Exception:
        return False
    return True


def compiled(function: Function, body: str) -> Callable[..., object]:
    space: dict[str, Any] = {}
    exec(function.prompt + body, space)
    found: Callable[..., object] = space[function.entry_point]
    return found


def pattern(wording: str) -> str:
    """Turn a wording into a pattern that matches it with its blanks filled in."""
    return re.sub(r"\\\{\w\\\}", r"\\w+", re.escape(wording))


def test_every_solution_passes_its_test() -> None:
    for function in SOME:
        assert passes(function, function.canonical_solution), function


def test_every_family_is_met_alone_and_most_after_another_step() -> None:
    described = [function.prompt.split('"""', 1)[1] for function in SOME]
    for step in STEPS:
        assert any(re.match(pattern(step.opening), text) for text in described), step
    twice = [text for text in described if ", then " in text]
    for step in (*families.LISTS, *families.LIST_ENDS, *families.TEXTS, *families.TEXT_ENDS):
        assert any(re.search(f", then {pattern(step.sequel)}", text) for text in twice), step


def test_functions_are_in_the_humaneval_schema() -> None:
    for function in SOME:
        shape = rf'def {function.entry_point}\(\w+(, \w+)?\):\n    """[^"\n][^\n]*[.?]"""\n'
        assert re.fullmatch(shape, function.prompt), function.prompt
        lines = function.canonical_solution.splitlines()
        assert 1 <= len(lines) <= 3
        assert lines[-1].startswith("    return ")
        assert all(line.startswith("    ") for line in lines)
        assert function.canonical_solution.endswith("\n")
        assert function.test.startswith("def check(candidate):\n    assert candidate(")
        assert function.test.count("\n    assert ") >= 5


def test_names_hide_nothing_that_a_solution_or_a_test_needs() -> None:
    taken = {*dir(builtins), *keyword.kwlist, "check", "candidate", "x"}
    assert not taken & {name for step in STEPS for name in step.names.split()}


def test_no_prompt_comes_twice() -> None:
    assert len({function.prompt for function in SOME}) == len(SOME)


SWAPS = (
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" % ", " // "),
    (" > ", " >= "),
    (" > ", " < "),
    (" < ", " <= "),
    (" < ", " > "),
    (" == ", " != "),
    ("max(", "min("),
    ("min(", "max("),
    ("sum(", "max("),
    ("sum(", "len("),
    ("len(", "sum("),
    ("sorted(", "list("),
    ("[::-1]", ""),
    ("[:", "[-"),
    ("[-", "["),
    (".upper()", ""),
    (".upper()", ".lower()"),
    (".startswith(", ".endswith("),
    (' + "', ' * "'),
    (".replace(", ".strip("),
    (" in ", " not in "),
    ("abs(", "("),
)


def wrong(body: str) -> Iterator[str]:
    """Yield variants of a body: another sign, number, letter or argument."""
    for old, new in SWAPS:
        if old in body:
            yield body.replace(old, new, 1)
    for match in re.finditer(r"\d+", body):
        for number in (int(match[0]) + 1, int(match[0]) - 1):
            yield body[: match.start()] + str(number) + body[match.end() :]
    for match in re.finditer(r'"(\w)"', body):
        yield body[: match.start()] + '"b"' + body[match.end() :]


def given(rng: random.Random, function: Function) -> tuple[object, ...]:
    """Draw arguments that depend only on the kinds of the function's arguments."""
    names = re.findall(r"\w+", function.prompt.split("\n")[0])[2:]
    if names[0] in {"xs", "ns", "ys"}:
        return (rng.choices(range(-5, 36), k=rng.randint(0, 12)),)
    if names[0] in {"s", "t", "w"}:
        return ("".join(rng.choices("aeinostzV ", k=rng.randint(0, 12))),)
    return tuple(rng.randint(-10, 40) for _ in names)


def outcome(call: Callable[..., object], arguments: tuple[object, ...]) -> object:
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


def test_a_wrong_program_fails_wherever_it_is_wrong_at_all_often() -> None:
    rng = random.Random("wrong")
    caught = 0
    for function in SOME[:800]:
        right = compiled(function, function.canonical_solution)
        for body in set(wrong(function.canonical_solution)):
            if not passes(function, body):
                caught += 1
                continue
            other = compiled(function, body)
            cases = [given(rng, function) for _ in range(200)]
            differ = sum(outcome(right, case) != outcome(other, case) for case in cases)
            assert differ <= 10, (function, body)
    assert caught > 1000


@pytest.mark.parametrize("body", ["", "    pass\n", "    return None\n", "    return 0\n", "}"])
def test_an_answer_that_is_the_same_for_all_never_passes(body: str) -> None:
    assert not any(passes(function, body) for function in SOME)


def test_code_documents_run_and_give_no_target_function_away() -> None:
    rng = random.Random("notes")
    some = [code_document(rng) for _ in range(2000)]
    for text in some:
        exec(text, {})
    described = [text for text in some if '"""' in text]
    assert 180 < len(described) < 320
    # A target's description names an argument; a pretraining document's never does.
    for text in described:
        arguments = re.findall(r"\w+", text.split("\n")[0])[2:]
        said = re.sub(r'"\w"', "", text.split('"""')[1])
        assert not set(arguments) & set(re.findall(r"\w+", said)), text
    prompts = {text[: text.rindex('"""\n')] + '"""\n' for text in described}
    assert not prompts & {function.prompt for function in SOME}
