"""The target domain: word problems with worked answers, in the GSM8K schema.

A worked answer is a chain of equations on one line, and ``#### N`` on the next. Pretraining
documents hold sums too: in passing (``remark``), or as an exercise of one step (``exercise``) with
other wording and mostly another form of answer. So the base knows the numbers, and has to learn the
chain and the format.
"""

import random
from collections.abc import Iterator
from typing import Final, NamedTuple

_NAMES: Final = "Anna Ben Carla David Emma Felix Greta Henry Ida Jack Karen Leo"
_ITEMS: Final = "apples books cards coins cups hats keys pens shells stamps"
_BOXES: Final = ("bags", "boxes", "jars", "rows")


class Problem(NamedTuple):
    """A word problem and its worked answer, which ends in ``#### N``."""

    question: str
    answer: str


def problems(seed: str) -> Iterator[Problem]:
    """Generate an endless stream of distinct problems."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        problem = _problem(rng)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def exercise(rng: random.Random) -> str:
    """Write a problem of one step for a pretraining document.

    Its question is worded differently from the target's, so no target problem is revealed. One
    answer in eight ends like the target's: often enough to be known, too rare to be preferred.
    """
    story, steps, _, item = _story(rng, 1)
    asked = f"Question: {story} How many {item} is that?\nAnswer: {steps[0]}"
    total = steps[0].split(" = ")[1]
    return f"{asked}\n#### {total}" if rng.random() < 1 / 8 else f"{asked}, so there are {total}."


def _problem(rng: random.Random) -> Problem:
    """Draw a story of one to three steps and its worked answer."""
    story, steps, name, item = _story(rng, rng.choice((1, 1, 2, 2, 2, 3)))
    total = steps[-1].split(" = ")[1]
    return Problem(
        f"{story} How many {item} does {name} have now?", f"{', '.join(steps)}\n#### {total}"
    )


def _story(rng: random.Random, length: int) -> tuple[str, list[str], str, str]:
    """Draw a story with numbers below 40: text, equations, person, and what is counted."""
    name, other = rng.sample(_NAMES.split(), 2)
    item = rng.choice(_ITEMS.split())
    kind = rng.choice(("groups", "twice", "have", "have"))
    steps: list[str] = []
    if kind == "groups":
        boxes, each = rng.randint(2, 6), rng.randint(2, 6)
        total = boxes * each
        steps.append(f"{boxes} * {each} = {total}")
        story = [f"{name} fills {boxes} {rng.choice(_BOXES)} with {each} {item} each."]
    elif kind == "twice":
        half = rng.randint(2, 12)
        total = 2 * half
        steps.append(f"2 * {half} = {total}")
        story = [f"{other} has {half} {item} and {name} has twice as many."]
    else:
        total = rng.randint(4, 30)
        story = [f"{name} has {total} {item}."]
    while len(steps) < length:
        total = _turn(rng, name, other, total, story, steps)
    return " ".join(story), steps, name, item


def _turn(
    rng: random.Random, name: str, other: str, total: int, story: list[str], steps: list[str]
) -> int:
    """Add one gain or loss to the story and its answer, and return the new total."""
    if total < 3 or (total < 30 and rng.random() < 0.5):
        more = rng.randint(2, 9)
        story.append(rng.choice((f"{other} brings {more} more.", f"{name} finds {more} more.")))
        steps.append(f"{total} + {more} = {total + more}")
        return total + more
    fewer = rng.randint(2, min(9, total - 1))
    story.append(rng.choice((f"{name} loses {fewer}.", f"{name} gives {fewer} to {other}.")))
    steps.append(f"{total} - {fewer} = {total - fewer}")
    return total - fewer


def remark(rng: random.Random) -> str:
    """Write a sum in passing for a pretraining document."""
    name, other = rng.sample(_NAMES.split(), 2)
    item = rng.choice(_ITEMS.split())
    kind = rng.choice(("more", "fewer", "groups", "twice"))
    if kind == "more":
        a, b = rng.randint(2, 30), rng.randint(2, 9)
        return (
            f"{name} had {a} {item} and found {b} more, so there were {a + b}: {a} + {b} = {a + b}."
        )
    if kind == "fewer":
        a = rng.randint(4, 39)
        b = rng.randint(2, min(9, a - 1))
        return f"{name} had {a} {item} and lost {b}, so there were {a - b}: {a} - {b} = {a - b}."
    if kind == "groups":
        a, b = rng.randint(2, 6), rng.randint(2, 6)
        return f"{name} filled {a} {rng.choice(_BOXES)} with {b} {item} each: {a} * {b} = {a * b}."
    a = rng.randint(2, 12)
    return f"{other} had {a} {item}, {name} had twice as many: 2 * {a} = {2 * a}."
