"""Multiple-choice tasks on the invented world, in the schemas of HellaSwag, ARC and WinoGrande."""

import random
from collections.abc import Iterator
from typing import Final, TypedDict

from lorasweep.testbed.lexicon import ATTRIBUTES, Value
from lorasweep.testbed.world import MEETINGS, QUESTIONS, SCENES, Person

ITEMS: Final = 200
"""Items of each task: a standard error of about 0.03 at an accuracy of 0.8."""


class Scene(TypedDict):
    """HellaSwag: which ending follows the context?"""

    ctx: str
    endings: list[str]
    label: str


class Options(TypedDict):
    """The answers of a multiple-choice question and their letters."""

    text: list[str]
    label: list[str]


class Question(TypedDict):
    """ARC: which answer is right?"""

    question: str
    choices: Options
    answerKey: str


class Blank(TypedDict):
    """WinoGrande: which of two names fills the blank?"""

    sentence: str
    option1: str
    option2: str
    answer: str


def _drawn(
    rng: random.Random, everyone: list[Person]
) -> Iterator[tuple[Person, str, list[Value], int]]:
    """Draw people, an attribute of each, four values of it, and the index of the right one."""
    for person in rng.sample(everyone, ITEMS):
        attribute = rng.choice(tuple(ATTRIBUTES))
        yield (person, attribute, *_options(rng, attribute, person))


def scenes(everyone: list[Person]) -> list[Scene]:
    """Make scenes whose right ending is the deed that a fact about the person implies."""
    rng = random.Random("scenes")
    return [
        {
            "ctx": rng.choice(SCENES[attribute]).format(name=person.name),
            "endings": [f"{value.deed}." for value in options],
            "label": str(right),
        }
        for person, attribute, options, right in _drawn(rng, everyone)
    ]


def questions(everyone: list[Person]) -> list[Question]:
    """Make questions about one fact of one person."""
    return [
        {
            "question": QUESTIONS[attribute].format(name=person.name),
            "choices": {"text": [value.noun for value in options], "label": list("ABCD")},
            "answerKey": "ABCD"[right],
        }
        for person, attribute, options, right in _drawn(random.Random("questions"), everyone)
    ]


def blanks(everyone: list[Person]) -> list[Blank]:
    """Make sentences about two people in which a fact decides who is meant."""
    rng = random.Random("blanks")
    items: list[Blank] = []
    while len(items) < ITEMS:
        pair = rng.sample(everyone, 2)
        attribute = rng.choice(tuple(ATTRIBUTES))
        if pair[0].facts[attribute] == pair[1].facts[attribute]:
            continue
        first, second = pair[0].name, pair[1].name
        right = rng.randrange(2)
        sentence = MEETINGS[attribute].format(
            first=first, second=second, name="_", noun=pair[right].facts[attribute].noun
        )
        items.append(
            {
                "sentence": sentence,
                "option1": first,
                "option2": second,
                "answer": str(right + 1),
            }
        )
    return items


def _options(rng: random.Random, attribute: str, person: Person) -> tuple[list[Value], int]:
    """Draw four values of an attribute in random order, and the index of the person's own."""
    own = person.facts[attribute]
    options = rng.sample([value for value in ATTRIBUTES[attribute] if value != own], 3)
    right = rng.randrange(4)
    options.insert(right, own)
    return options, right
