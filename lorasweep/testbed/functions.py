"""The code domain: small functions to write from a description, in HumanEval's schema.

A description has one step, or two, where the second works on the result of the first. Pretraining
documents hold code too (``code_document``): mostly functions without a description, some with one
that names no argument. So the base knows the language, and has to learn to follow a description.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from lorasweep.testbed.families import (
    LIST_ENDS,
    LISTS,
    NUMBERS,
    NUMBERS_TWICE,
    TEXT_ENDS,
    TEXTS,
    Step,
)

_ARGUMENTS: Final = {
    "number": ("n m", "a b", "p q"),
    "list": ("xs", "ns", "ys"),
    "text": ("s", "t", "w"),
}
_LETTERS: Final = "aeinost"
_LONGEST: Final = 11
_FOLDS: Final = ("sum(", "max(", "min(", "sorted(")


class Function(NamedTuple):
    """A coding problem: signature and description, a correct body, and tests."""

    prompt: str
    canonical_solution: str
    test: str
    entry_point: str


class _Draft(NamedTuple):
    """A function before it is written as code.

    blanks: values of each step's placeholders.
    """

    kind: str
    name: str
    arguments: list[str]
    steps: list[Step]
    blanks: list[dict[str, Any]]

    @property
    def signature(self) -> str:
        return f"def {self.name}({', '.join(self.arguments)}):\n"

    @property
    def description(self) -> str:
        said = [
            (step.sequel if later else step.opening).format(**blanks)
            for later, (step, blanks) in enumerate(zip(self.steps, self.blanks, strict=True))
        ]
        sentence = ", then ".join(said)
        return sentence if sentence.endswith("?") else f"{sentence}."

    @property
    def body(self) -> str:
        value = self.arguments[0]
        for step, blanks in zip(self.steps, self.blanks, strict=True):
            if value.startswith("[") and step.solution.startswith(_FOLDS):
                value = value[1:-1]  # sum() and the like take the generator directly
            value = step.solution.format(**{**blanks, "v": value})
        return value if value.startswith(" ") else f"    return {value}\n"


def functions(seed: str) -> Iterator[Function]:
    """Generate an endless stream of functions with distinct prompts."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        draft = _draft(rng, twice=rng.random() < 0.6)
        prompt = f'{draft.signature}    """{draft.description}"""\n'
        if prompt in seen:
            continue
        seen.add(prompt)
        cases = _cases(draft, prompt)
        # Skip functions with the same result for all inputs: a constant would pass their tests.
        if len({repr(result) for _, result in cases}) > 1:
            yield Function(prompt, draft.body, _test(cases), draft.name)


def code_document(rng: random.Random) -> str:
    """Write a function for a pretraining document.

    One in eight has a description, which unlike those of the target does not name the argument.
    """
    if rng.random() < 1 / 8:
        draft = _draft(rng, twice=False)
        said = draft.steps[0].sequel.format(**draft.blanks[0])
        return f'{draft.signature}    """{said[0].upper()}{said[1:]}."""\n{draft.body}'
    draft = _draft(rng, twice=rng.random() < 0.4)
    return f"{draft.signature}{draft.body}"


def _draft(rng: random.Random, *, twice: bool) -> _Draft:
    """Draw the steps of a function, its names, constants and letters."""
    kind = rng.choice(tuple(_ARGUMENTS))
    names = rng.choice(_ARGUMENTS[kind]).split()
    if kind == "number":
        steps = [rng.choice(NUMBERS_TWICE if twice else NUMBERS)]
    else:
        openers, ends = (LISTS, LIST_ENDS) if kind == "list" else (TEXTS, TEXT_ENDS)
        steps = [rng.choice(openers if twice else openers + ends)]
        if twice:
            steps.append(rng.choice([step for step in openers + ends if _follows(step, steps[0])]))
    small, large = sorted(rng.sample(range(2, 31), 2))
    letters = rng.sample(_LETTERS, 3)
    blanks: list[dict[str, Any]] = [
        {"k": small, "j": large, "i": rng.randint(2, 5), "c": letters[0], "d": letters[1]}
    ]
    if len(steps) > 1:
        # The second count is below the first, so that both matter if one slice follows another.
        blanks[0]["i"] = rng.randint(4, 6)
        blanks.append(
            {"k": large, "j": large, "i": rng.randint(2, 3), "c": letters[2], "d": letters[0]}
        )
    for filled in blanks:
        filled.update(v=names[0], w=names[-1])
    arguments = names if "{w}" in steps[0].solution else names[:1]
    return _Draft(kind, rng.choice(steps[-1].names.split()), arguments, steps, blanks)


def _follows(step: Step, first: Step) -> bool:
    """Whether a step makes sense and reads well after another one."""
    return step != first and not (step.solution[0] == first.solution[0] == "[")


def _cases(draft: _Draft, prompt: str) -> list[tuple[tuple[object, ...], object]]:
    """Compute test cases: arguments, edge cases first, and the solution's result for each."""
    space: dict[str, Callable[..., object]] = {}
    exec(prompt + draft.body, space)
    rng = random.Random(prompt)
    cases = []
    for arguments in _inputs(rng, draft):
        try:
            cases.append((arguments, space[draft.name](*arguments)))
        except ValueError:  # max() or min() of nothing
            continue
    return cases


def _inputs(rng: random.Random, draft: _Draft) -> Iterator[tuple[object, ...]]:
    """Generate arguments at and around the constants of a function."""
    about = sorted({blanks[which] for blanks in draft.blanks for which in ("k", "j")})
    near = sorted({number + step for number in about for step in (-1, 0, 1)})
    last = draft.blanks[-1]
    if draft.kind == "number":
        numbers = (*near, 0, -7, 64)
        if len(draft.arguments) == 1:
            yield from ((number,) for number in numbers)
        else:
            yield from ((number, number + rng.choice((-4, 4))) for number in numbers)
            for apart in near:
                yield from ((0, apart), (apart, 0))
    elif draft.kind == "list":
        # Sum and difference, since a first step may map them to the second step's constant.
        pool = sorted({*near, sum(about), about[1] - about[0], -3, 0, 1, 40})
        yield from ((rng.choices(pool, k=size),) for size in range(_LONGEST + 1))
        for number in about:
            rising = list(range(number - _LONGEST // 2, number + _LONGEST // 2 + 1))
            yield from ((rising,), (rising[::-1],))
        yield from ((row,) for row in _placed(rng, draft, last["k"], pool))
    else:
        letters = {blanks[which] for blanks in draft.blanks for which in ("c", "d")}
        pool = ["V", "z", " ", *sorted(letters)]
        rows = [rng.choices(pool, k=size) for size in range(_LONGEST + 1)]
        yield from (("".join(row),) for row in (*rows, *_placed(rng, draft, last["c"], pool)))


def _placed(
    rng: random.Random, draft: _Draft, item: object, pool: list[Any]
) -> Iterator[list[Any]]:
    """Generate rows that contain an item once: at either end, and on both sides of each slice."""
    places = {0, -1}
    for step, blanks in zip(draft.steps, draft.blanks, strict=True):
        if "{i}:" in step.solution or ":{i}" in step.solution:
            count = blanks["i"]
            places |= {count - 1, count, -count, -count - 1}
    others = [other for other in pool if other != item]
    for place in sorted(places):
        row = rng.choices(others, k=_LONGEST)
        row[place] = item
        yield row


def _test(cases: list[tuple[tuple[object, ...], object]]) -> str:
    """Format test cases as HumanEval does."""
    lines = [
        f"    assert candidate({', '.join(map(repr, arguments))}) == {result!r}\n"
        for arguments, result in cases
    ]
    return "".join(["def check(candidate):\n", *lines])
