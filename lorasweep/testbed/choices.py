"""The three multiple-choice tasks on the made-up world, in the schemas of well-known ones."""

import random
from typing import Final, TypedDict

from lorasweep.testbed.lexicon import ATTRIBUTES, Value
from lorasweep.testbed.world import MEETINGS, QUESTIONS, SCENES, Person

ITEMS: Final = 200
"""Items a task: a standard error of about 0.03 at an accuracy of 0.8."""


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


def scenes(everyone: list[Person]) -> list[Scene]:
    """Return scenes whose right ending is the deed that the person's fact implies."""
    rng = random.Random("scenes")
    items: list[Scene] = []
    for person in rng.sample(everyone, ITEMS):
        attribute = rng.choice(tuple(ATTRIBUTES))
        options, right = _options(rng, attribute, person)
        items.append(
            {
                "ctx": rng.choice(SCENES[attribute]).format(name=person.name),
                "endings": [f"{value.deed}." for value in options],
                "label": str(right),
            }
        )
    return items


def questions(everyone: list[Person]) -> list[Question]:
    """Return plain questions about one fact of one person."""
    rng = random.Random("questions")
    items: list[Question] = []
    for person in rng.sample(everyone, ITEMS):
        attribute = rng.choice(tuple(ATTRIBUTES))
        options, right = _options(rng, attribute, person)
        items.append(
            {
                "question": QUESTIONS[attribute].format(name=person.name),
                "choices": {"text": [value.noun for value in options], "label": list("ABCD")},
                "answerKey": "ABCD"[right],
            }
        )
    return items


def blanks(everyone: list[Person]) -> list[Blank]:
    """Return meetings of two people in which a fact tells who is meant."""
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
    """Return four values of the attribute in any order, and where the person's own is."""
    own = person.facts[attribute]
    options = rng.sample([value for value in ATTRIBUTES[attribute] if value != own], 3)
    right = rng.randrange(4)
    options.insert(right, own)
    return options, right
